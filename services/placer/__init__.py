"""The placer decides which node runs which stage."""
