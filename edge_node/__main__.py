"""`python -m splitplace.edge_node`, the same as `splitplace node`."""

from typing import Any

from splitplace.bus.command_line import settings_command
from splitplace.bus.discovery import wait_for_broker
from splitplace.bus.process import run_until_signal
from splitplace.edge_node.joining import join
from splitplace.edge_node.settings import JoinSettings, NodeSettings
from splitplace.edge_node.start import run as run_node
from splitplace.security.tokens import parse_token
from splitplace.storage.secured import SecuredFolder
from splitplace.terminal import run


def _run(given: dict[str, Any]) -> None:
    """Join, if there is a token, and run until a signal ends the node."""
    first = {name: given[name] for name in ("join", "state_dir") if name in given}
    joining = JoinSettings.load(**first)
    if joining.join is not None:
        token = parse_token(joining.join.get_secret_value())
        given["credentials"] = join(token, SecuredFolder(joining.paths.secured).users)
    chosen = wait_for_broker(NodeSettings.load(**given))
    run_until_signal(run_node(chosen), chosen)


app = settings_command(NodeSettings, _run, "Run fragments on this device.")

if __name__ == "__main__":
    run(app, "splitplace node")
