"""`python -m splitplace.services.placer`, the same as `splitplace placer`."""

from splitplace.bus.command_line import part_command
from splitplace.services.placer.service import Placer
from splitplace.services.placer.settings import PlacerSettings
from splitplace.terminal import run

app = part_command(
    PlacerSettings, lambda settings: Placer(settings).run(), "Decide which node runs which fragment."
)

if __name__ == "__main__":
    run(app, "splitplace placer")
