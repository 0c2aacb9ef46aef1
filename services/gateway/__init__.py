"""The gateway: takes tasks from sensors and owns the truth about each of them."""
