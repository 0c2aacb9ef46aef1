"""`python -m splitplace.services.gateway`, the same as `splitplace gateway`."""

from splitplace.bus.command_line import part_command
from splitplace.services.gateway.service import serve
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.terminal import run

app = part_command(GatewaySettings, serve, "Take tasks from sensors and answer them.")

if __name__ == "__main__":
    run(app, "splitplace gateway")
