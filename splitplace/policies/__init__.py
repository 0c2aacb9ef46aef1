"""Pure decisions: how to predict, split, place and score. No I/O, no clock, no global state."""
