"""The gateway: the door for sensors and the one owner of every task's truth."""
