"""The result aggregator merges outputs and counts outcomes."""
