"""The splitter decides for each task how to split it."""
