"""The paper's experiments, repeated on the simulator: a table of what to run, statistics, pages."""
