"""`splitplace service`."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path, PurePosixPath
from typing import Annotated, get_args

import typer

from splitplace.commands.service.steps import (
    NODE_SETTINGS,
    Place,
    Step,
    Write,
    installing,
    perform,
    run_quietly,
    uninstalling,
)
from splitplace.commands.service.units import UNITS, Part, Target, trouble_with
from splitplace.errors import ConfigurationError, SplitPlaceError

app = typer.Typer(
    help="Run a node, the services or the broker under systemd.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

PartArgument = Annotated[
    str,
    typer.Argument(metavar="node|up|broker", help="What to run: a node, the five services, or the broker."),
]
UserOption = Annotated[bool, typer.Option("--user", help="For your own account, without root.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
RootOption = Annotated[
    Path, typer.Option("--root", help="Root folder of another system; it is not started there.", hidden=True)
]


@app.command()
def install(
    part: PartArgument,
    *,
    user: UserOption = False,
    broker: Annotated[
        str | None, typer.Option("--broker", help="Address that a node gets, where it has no settings yet.")
    ] = None,
    dry_run: DryRunOption = False,
    root: RootOption = Path("/"),
) -> None:
    """Install a systemd unit, enable it, and start it."""
    named = _part(part)
    target, place = Target(_program(), is_for_user=user), Place(root, Path.home(), is_for_user=user)
    if (trouble := trouble_with(target)) is not None:
        raise ConfigurationError(trouble)
    settings = NODE_SETTINGS
    if broker is not None:
        if named != "node":
            raise ConfigurationError("--broker is for a node; the services read splitplace.toml")
        settings = f'broker = "{_checked(broker)}"\n'
        if (place.settings / "node.toml").exists():
            raise ConfigurationError(
                f"{place.settings / 'node.toml'} is there already: write the broker into it"
            )
    _do(installing(named, target, place, settings), place, dry_run=dry_run)
    if not dry_run:
        print(f"{UNITS[named]} is installed. See what it says: {_journal(named, place)}")
        if user:
            print("It ends when you log out, unless: loginctl enable-linger")


@app.command()
def uninstall(
    part: PartArgument,
    *,
    user: UserOption = False,
    dry_run: DryRunOption = False,
    root: RootOption = Path("/"),
) -> None:
    """Stop a part and remove its systemd unit. Settings and state stay."""
    named, place = _part(part), Place(root, Path.home(), is_for_user=user)
    if not dry_run and not (place.units / UNITS[named]).exists():
        raise SplitPlaceError(f"{place.units / UNITS[named]} is not there: nothing to remove")
    _do(uninstalling(named, place), place, dry_run=dry_run)
    if not dry_run:
        print(
            f"{UNITS[named]} is removed; settings stay in {place.settings}, state where docs/files.md says."
        )


def _do(steps: list[Step], place: Place, *, dry_run: bool) -> None:
    if dry_run:
        for step in steps:
            print(step)
            if isinstance(step, Write):
                print("".join(f"    {line}\n" for line in step.text.splitlines()), end="")
        return
    if (reason := why_not(place)) is not None:
        raise SplitPlaceError(reason)
    perform(steps, run_quietly)


def why_not(place: Place) -> str | None:
    """Return why nothing can be installed here, None where it can."""
    if shutil.which("systemctl") is None or not (place.root / "run" / "systemd" / "system").is_dir():
        return (
            "systemd does not run here (a container, another init system): start the part by whatever starts "
            "programs here, such as: splitplace node. --dry-run shows the unit"
        )
    if place.is_for_user:
        if not (Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere")) / "systemd").is_dir():
            return "your account has no systemd manager: log in at the device or by ssh, not by su or sudo"
    elif os.geteuid() != 0:
        return f"services of the system need root: sudo {_program()} service ..., or add --user"
    return None


def _part(name: str) -> Part:
    for part in get_args(Part):
        if part == name:
            return part  # type: ignore[no-any-return]
    raise ConfigurationError(f"{name} is no part to install: node, up or broker")


def _program() -> PurePosixPath:
    """Return the path of `splitplace` in this environment."""
    program = Path(sysconfig.get_path("scripts")) / "splitplace"
    if not program.is_file():
        program = Path(sys.executable).parent / "splitplace"
    return PurePosixPath(program)


def _checked(broker: str) -> str:
    if not broker.startswith(("mqtt://", "mqtts://")) or any(each in broker for each in '"\\\n'):
        raise ConfigurationError(f"{broker!r} is no address of a broker, such as mqtt://192.168.1.10:1883")
    return broker


def _journal(part: Part, place: Place) -> str:
    return f"journalctl {'--user ' if place.is_for_user else ''}-u {UNITS[part].removesuffix('.service')} -f"
