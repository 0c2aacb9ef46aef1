"""`python -m edge_node --node pi-1 --broker mqtt://192.168.1.10`: run an edge node."""

import sys
from collections.abc import Sequence

from splitplace.bus.service import run_until_signal
from splitplace.edge_node.agent import run
from splitplace.edge_node.settings import NodeSettings


def main(argv: Sequence[str] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM."""
    settings = NodeSettings.from_arguments(sys.argv[1:] if argv is None else argv, "splitplace node")
    run_until_signal(run(settings), settings)


if __name__ == "__main__":
    main()
