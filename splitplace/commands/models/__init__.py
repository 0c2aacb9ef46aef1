"""The command group `models`."""
