"""A page with pictures of every variant."""
