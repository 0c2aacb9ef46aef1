"""One file for each subcommand. Each has a function `command`, whose docstring is its help.

`models` has a `main` instead, because most of its arguments belong to other programs.
"""
