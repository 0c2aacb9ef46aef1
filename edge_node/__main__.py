"""`python -m splitplace.edge_node`, the same as `splitplace node`."""

from splitplace.bus.command_line import part_command
from splitplace.edge_node.agent import run as run_node
from splitplace.edge_node.settings import NodeSettings
from splitplace.terminal import run

app = part_command(NodeSettings, run_node, "Run fragments on this device.")

if __name__ == "__main__":
    run(app, "splitplace node")
