"""The agent that runs on an edge node: fetches fragments, runs them, forwards tensors. Needs no torch."""
