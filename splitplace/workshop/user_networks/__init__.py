"""Make an application of a network that a user brings."""
