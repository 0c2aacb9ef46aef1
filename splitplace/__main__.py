"""`python -m splitplace`, the same as `splitplace`."""

from splitplace.commands.main import main

main()
