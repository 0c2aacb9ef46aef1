"""`python -m splitplace.services.resource_monitor`."""

import sys
from collections.abc import Sequence

from splitplace.bus.service import run_until_signal
from splitplace.services.resource_monitor.service import ResourceMonitorSettings, serve


def main(argv: Sequence[str] | None = None) -> None:
    """Run the resource monitor until a signal; arguments default to the command line."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = ResourceMonitorSettings.from_arguments(arguments, "splitplace resource-monitor")
    run_until_signal(serve(settings), settings)


if __name__ == "__main__":
    main()
