"""`splitplace` and `python -m splitplace`: Ctrl-C ends it without a traceback, also while it loads."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command and exit with a code of `splitplace.errors.ExitCode`, or 130 after Ctrl-C."""
    try:
        from splitplace.commands.main import main as command  # noqa: PLC0415 - takes seconds on a small board
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
