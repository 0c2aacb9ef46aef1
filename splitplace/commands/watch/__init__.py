"""The command `watch`: observe the topics of a system, show them, record them."""
