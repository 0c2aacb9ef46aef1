"""One file for each subcommand. Each has a function `command`, whose docstring is its help."""
