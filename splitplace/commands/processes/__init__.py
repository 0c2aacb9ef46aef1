"""Processes that a command starts: parts of the system, a broker, CPU quotas."""
