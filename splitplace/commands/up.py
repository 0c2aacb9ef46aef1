"""`splitplace up`."""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, ClassVar, NoReturn

import typer

from splitplace.bus.hints import OPEN_TO_ALL, is_loopback
from splitplace.bus.own_addresses import own_addresses
from splitplace.bus.settings import Settings
from splitplace.bus.supervisor import Supervisor
from splitplace.commands.dashboard.start import start_dashboard
from splitplace.commands.processes.children import Processes
from splitplace.commands.shared.announced import announced
from splitplace.commands.shared.credentials import hand_on_credentials
from splitplace.commands.shared.options import (
    CredentialsFolderOption,
    LogLevelOption,
    NamedBrokerOption,
    PrefixOption,
)
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.commands.shared.policy_option import PolicyOption, parse_pair
from splitplace.commands.shared.service_processes import TOGETHER, ApartOption, service_processes
from splitplace.errors import ConfigurationError, SplitPlaceError
from splitplace.messages.topics import ENROLLER, GATEWAY, SERVICES
from splitplace.storage.exclusive import exclusive
from splitplace.storage.paths import Paths
from splitplace.storage.secured import UsersFolder
from splitplace.terminal import printable

_WATCH_S = 0.2


class _UpSettings(Settings):
    """Where all services connect to; each has a user of its own."""

    user: ClassVar[str] = GATEWAY


class Renewals:
    """Notices credentials that `splitplace secure rotate` has replaced, while the old ones are still good."""

    def __init__(self, folder: Path | None, names: Iterable[str]) -> None:
        """Note what there is now.

        Args:
            folder: with the files of credentials; None where there are no users.
            names: whose files to look at.
        """
        self._files = {} if folder is None else {name: UsersFolder(folder).file(name) for name in names}
        self._seen = {name: _changed_ns(file) for name, file in self._files.items()}

    def due(self) -> list[str]:
        """Return whose credentials are new since the last call."""
        now = {name: _changed_ns(file) for name, file in self._files.items()}
        new = [name for name, changed in now.items() if changed is not None and changed != self._seen[name]]
        self._seen |= {name: now[name] for name in new}
        return new


def _changed_ns(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return None


def command(
    *,
    broker: NamedBrokerOption = None,
    prefix: PrefixOption = None,
    lan: Annotated[
        bool,
        typer.Option(
            "--lan", help="Announce the broker in this network (mDNS): nodes find it by themselves."
        ),
    ] = False,
    credentials: CredentialsFolderOption = None,
    dashboard: Annotated[
        bool,
        typer.Option("--dashboard/--no-dashboard", help="Whether to run the dashboard on this machine too."),
    ] = True,
    policy: PolicyOption = None,
    state_dir: StateDirOption = None,
    log_level: LogLevelOption = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the logs.", show_default="log in the state folder")
    ] = None,
    apart: ApartOption = False,
) -> None:
    """Run all five services.

    They share a process, which is restarted if it dies. Services read their settings from
    `SPLITPLACE_*` variables and `splitplace.toml`. They wait for the broker (see `splitplace broker`).
    """
    if credentials is not None and not credentials.is_dir():
        raise ConfigurationError(
            f"--credentials {credentials}: each service needs its own; name the folder with their files"
        )
    given = {"broker": broker, "prefix": prefix, "log_level": log_level, "credentials": credentials}
    given |= {"state_dir": state_dir}
    settings = _UpSettings.load(**{name: value for name, value in given.items() if value is not None})
    hand_on_credentials(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pair = parse_pair(policy)
    shared = ["--broker", settings.broker, "--prefix", settings.prefix, "--log-level", settings.log_level]
    if settings.credentials is not None:
        shared += ["--credentials", str(settings.credentials.parent)]
    if state_dir is not None:
        shared += ["--state-dir", str(state_dir)]
    supervisor = Supervisor.found()  # before any child has its environment
    places = paths(state_dir)
    with (
        _only_one(places),
        Processes(folder or places.logs) as processes,
        _announced(settings, wanted=lan),
    ):
        try:
            for name, flags in service_processes(pair, apart=apart).items():
                _start(processes, name, ["-m", "splitplace", name, *shared, *flags])
            if settings.credentials is not None:
                _start_enroller(processes, UsersFolder(settings.credentials.parent))
            where = _dashboard_flags(settings, state_dir)
            print(start_dashboard(processes, settings, where, wanted=dashboard), flush=True)
            print("\n".join(_greeting(settings)), flush=True)
            supervisor.ready(f"five services use {settings.broker}")
            users = {*SERVICES, *processes.children} - {TOGETHER}
            renewals = Renewals(settings.credentials and settings.credentials.parent, users)
            _watch(processes, renewals, supervisor)
        except KeyboardInterrupt:
            print("stopping")


@contextlib.contextmanager
def _only_one(places: Paths) -> Iterator[None]:
    """Hold the state folder: its journal is for one gateway, and that of a second `up` could never start.

    Raises SplitPlaceError, OSError.
    """
    places.state_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(places.up_lock))
        except BlockingIOError as error:
            raise SplitPlaceError(
                f"another splitplace up uses {places.state_dir}: end that one, or give each system a "
                "--state-dir of its own"
            ) from error
        yield


def _dashboard_flags(settings: Settings, state_dir: Path | None) -> list[str]:
    flags = ["--broker", settings.broker, "--prefix", settings.prefix]
    return flags if state_dir is None else [*flags, "--state-dir", str(state_dir)]


def _start(processes: Processes, name: str, arguments: Sequence[str]) -> None:
    child = processes.start(name, [sys.executable, *arguments], restart=True)
    print(f"{name:18} process {child.pid}, log in {child.log_file}", flush=True)


def _greeting(settings: Settings) -> Iterable[str]:
    yield f"all services use {settings.broker}, topics below {settings.prefix} (Ctrl-C stops them)"
    if settings.is_open_to_others:
        yield OPEN_TO_ALL


def _announced(settings: Settings, *, wanted: bool) -> AbstractContextManager[None]:
    """Announce the broker, if that is wanted."""
    if not wanted:
        return contextlib.nullcontext()
    return announced(
        own_addresses() if is_loopback(settings.host) else (settings.host,),
        settings.port,
        settings.prefix,
        has_users=settings.username is not None,
    )


def _watch(processes: Processes, renewals: Renewals, supervisor: Supervisor) -> NoReturn:
    """Restart services that die, or that have new credentials, until a signal ends this."""
    feed_s = time.monotonic()
    while True:
        time.sleep(_WATCH_S)
        if time.monotonic() >= feed_s:
            supervisor.feed()
            feed_s = time.monotonic() + (supervisor.feed_every_s or math.inf)
        due = renewals.due()
        for process in dict.fromkeys(name if name in processes.children else TOGETHER for name in due):
            print(f"{', '.join(due)}: new credentials; restarting {process}", flush=True)
            processes.restart(process)
        for death in processes.check():
            print(printable(f"{death}\nrestarting {death.name}"), file=sys.stderr, flush=True)


def _start_enroller(processes: Processes, users: UsersFolder) -> None:
    """Let nodes join with their tokens, where the credentials for that lie."""
    file = users.file(ENROLLER)
    if not file.is_file():
        print(f"no enroller: {file} is missing, so no node can join")
        return
    _start(processes, ENROLLER, ["-m", "splitplace.commands.secure.enroller", str(file)])
