"""The `splitplace` command."""
