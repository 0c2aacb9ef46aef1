"""`splitplace dashboard`."""

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvicorn

from splitplace.bus.hints import is_loopback
from splitplace.bus.service import software_version
from splitplace.commands.dashboard.exposition import Exposition
from splitplace.commands.dashboard.follow import follow, keep, write_ended
from splitplace.commands.dashboard.gallery import Gallery
from splitplace.commands.dashboard.guard import Access
from splitplace.commands.dashboard.history import open_history
from splitplace.commands.dashboard.minutes import MINUTE_S
from splitplace.commands.dashboard.start import DEFAULT_PORT, HOST
from splitplace.commands.dashboard.state import HOUR_MINUTES, DashboardState
from splitplace.commands.dashboard.web import Source, web_app
from splitplace.commands.shared.options import BrokerOption, CredentialsOption, PrefixOption, settings_from
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.errors import ConfigurationError, MissingExtraError, SplitPlaceError
from splitplace.storage.client_secret import kept_secret

if TYPE_CHECKING:
    from splitplace.commands.dashboard.traces import Traces


def command(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = DEFAULT_PORT,
    token: Annotated[
        bool | None,
        typer.Option(
            "--token/--no-token",
            help="Whether a browser must show a token, which lies in the state folder.",
            show_default="where others can reach it, or the broker has users",
        ),
    ] = None,
    allow_try: Annotated[
        bool, typer.Option("--try/--no-try", help="Whether the page Try may send test tasks.")
    ] = True,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Whether the last pictures of tasks are kept in memory and shown, with what was found.",
        ),
    ] = False,
    traces: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send an OpenTelemetry trace of each task to this collector (OTLP over HTTP, port 4318).",
        ),
    ] = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Show the system in a browser: is it well, which node is slow, why was this task late.

    Listens on this machine only, unless told otherwise. Keeps a bounded history in the state folder.
    """
    settings = settings_from(broker, prefix, credentials)
    tracing = _tracing(traces) if traces else None
    folder = paths(state_dir)
    wanted = (not is_loopback(host) or settings.username is not None) if token is None else token
    listening = _listening(host, port)
    secret = kept_secret(folder.dashboard_token) if wanted else None
    shown = f"[{host}]" if ":" in host else host
    print(f"dashboard: http://{shown}:{port}/{_with_token(secret, folder.dashboard_token)}", flush=True)
    history = open_history(folder.dashboard_history)
    now_s = time.time()
    state = DashboardState(started_s=now_s)
    state.minutes.extend(history.minutes(now_s - HOUR_MINUTES * MINUTE_S))
    exposition = Exposition(time.time)
    exposition.is_connected = lambda: state.connected

    def ended(record: TaskRecord) -> None:
        exposition.count(record)
        if tracing is not None:
            tracing.add(record, state.applications.get(record.application), time.time())

    state.on_end = ended
    gallery = Gallery() if pictures else None
    source = Source(
        settings, state, history, asyncio.Lock(), software_version(), exposition, gallery, state_dir
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn ends by raising the signal again
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(source, Access(secret, allow_try), listening))
    finally:
        write_ended(state, history)
        history.close()
        if tracing is not None:
            tracing.close()


def _tracing(url: str) -> "Traces":
    """Return where traces go. Raises ConfigurationError, MissingExtraError."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError(f"--traces {url}: give a whole address, such as http://127.0.0.1:4318")
    try:
        from splitplace.commands.dashboard.traces import to_collector  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MissingExtraError("splitplace dashboard --traces", str(error.name), "traces") from error
    return to_collector(url)


def _with_token(secret: str | None, file: Path) -> str:
    """Return the token as part of an address. A log gets only the name of its file: others may read it."""
    if secret is None:
        return ""
    return f"?token={secret}" if sys.stdout.isatty() else f"?token=... (the token is in {file})"


def _listening(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of the host that this machine has. Raises SplitPlaceError."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            try:
                sockets.append(socket.create_server(address, family=family))
            except OSError as error:
                # `localhost` may name an IPv6 address where there is none.
                if error.errno == errno.EADDRINUSE or (address == found[-1][4] and not sockets):
                    raise
    except OSError as error:
        for each in sockets:
            each.close()
        in_use = error.errno == errno.EADDRINUSE
        advice = "another dashboard? choose another --port" if in_use else "see --host"
        raise SplitPlaceError(f"cannot listen on {host}:{port}: {error.strerror} ({advice})") from error
    return sockets


async def _serve(source: Source, access: Access, listening: list[socket.socket]) -> None:
    config = uvicorn.Config(
        web_app(source, access),
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    work = [
        asyncio.create_task(follow(source.settings, source.state, source.exposition, source.gallery)),
        asyncio.create_task(keep(source.state, source.history, source.lock)),
    ]
    for each in work:  # neither ends by itself: without it, pages would show what was, as if it still were
        each.add_done_callback(lambda _: setattr(server, "should_exit", True))
    try:
        await server.serve(sockets=listening)
    finally:
        for each in work:
            each.cancel()
        for ended in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
