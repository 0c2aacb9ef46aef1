"""`python -m splitplace.services.splitter`, the same as `splitplace splitter`."""

from splitplace.bus.command_line import part_command
from splitplace.services.splitter.service import Splitter
from splitplace.services.splitter.settings import SplitterSettings
from splitplace.terminal import run

app = part_command(
    SplitterSettings, lambda settings: Splitter(settings).run(), "Decide how each task is split."
)

if __name__ == "__main__":
    run(app, "splitplace splitter")
