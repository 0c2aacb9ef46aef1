"""Watch a running system: observe its topics, draw them, record them."""
