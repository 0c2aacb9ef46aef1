"""`python -m splitplace.services.gateway`, the same as `splitplace gateway`."""

import sys
from collections.abc import Sequence

from splitplace.bus.service import run_until_signal
from splitplace.services.gateway.service import serve
from splitplace.services.gateway.settings import GatewaySettings


def main(argv: Sequence[str] | None = None) -> None:
    """Run the gateway until it is told to stop."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = GatewaySettings.from_arguments(arguments, "splitplace gateway")
    run_until_signal(serve(settings), settings)


if __name__ == "__main__":
    main()
