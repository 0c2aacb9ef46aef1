"""`python -m splitplace.services.placer`, the same as `splitplace placer`."""

import sys
from collections.abc import Sequence

from splitplace.bus.service import run_until_signal
from splitplace.services.placer.service import PlacerSettings, serve


def main(argv: Sequence[str] | None = None) -> None:
    """Run the placer until it is told to stop."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = PlacerSettings.from_arguments(arguments, "splitplace placer")
    run_until_signal(serve(settings), settings)


if __name__ == "__main__":
    main()
