"""The command `dashboard`: fold the topics of a system into a model and show it in a browser."""
