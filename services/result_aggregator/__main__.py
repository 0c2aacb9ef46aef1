"""`python -m splitplace.services.result_aggregator`."""

import sys
from collections.abc import Sequence

from splitplace.bus.service import run_until_signal
from splitplace.services.result_aggregator.service import ResultAggregatorSettings, serve


def main(argv: Sequence[str] | None = None) -> None:
    """Run the result aggregator until a signal; arguments default to the command line."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = ResultAggregatorSettings.from_arguments(arguments, "splitplace result-aggregator")
    run_until_signal(serve(settings), settings)


if __name__ == "__main__":
    main()
