"""Train networks and semantic branches."""
