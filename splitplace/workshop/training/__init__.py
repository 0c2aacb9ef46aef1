"""The training loop, and the losses of semantic branches."""
