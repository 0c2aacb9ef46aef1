"""`splitplace backup` and `splitplace restore`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from splitplace.bus.service import software_version
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.storage.backup import restore, save


def backup_command(
    archive: Annotated[Path, typer.Argument(help="The file to write, such as splitplace.tar.gz.")],
    *,
    state_dir: StateDirOption = None,
) -> None:
    """Copy what must not be lost into one file: journal, learners' state, users, networks of your own.

    All parts may run meanwhile. Only you can read the file; it holds passwords, and pictures of unfinished
    tasks.
    """
    made = save(paths(state_dir), archive, software=software_version())
    print(f"{archive}: {', '.join(made.names)}")


def restore_command(
    archive: Annotated[Path, typer.Argument(help="A file that `splitplace backup` wrote.")],
    *,
    state_dir: StateDirOption = None,
) -> None:
    """Put back what a backup holds; all parts must be stopped.

    What was there is moved into a folder beside it.
    """
    places = paths(state_dir)
    found, before = restore(places, archive)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.made_unix_s))
    names = ", ".join(found.names)
    print(f"{places.state_dir} is as it was on {made}, with SplitPlace {found.software}: {names}")
    if before is not None:
        print(f"what was there before is in {before}")
