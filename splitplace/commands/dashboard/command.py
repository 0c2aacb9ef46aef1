"""`splitplace dashboard`."""

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from splitplace.bus.hints import is_loopback
from splitplace.bus.service import software_version
from splitplace.commands.dashboard.follow import follow, keep, write_ended
from splitplace.commands.dashboard.guard import Access
from splitplace.commands.dashboard.history import open_history
from splitplace.commands.dashboard.minutes import MINUTE_S
from splitplace.commands.dashboard.start import DEFAULT_PORT, HOST
from splitplace.commands.dashboard.state import HOUR_MINUTES, DashboardState
from splitplace.commands.dashboard.web import Source, web_app
from splitplace.commands.shared.options import BrokerOption, CredentialsOption, PrefixOption, settings_from
from splitplace.commands.shared.places import StateDirOption, paths
from splitplace.storage.client_secret import kept_secret


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
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Show the system in a browser: is it well, which node is slow, why was this task late.

    Listens on this machine only, unless told otherwise. Keeps a bounded history in the state folder.
    """
    settings = settings_from(broker, prefix, credentials)
    folder = paths(state_dir)
    wanted = (not is_loopback(host) or settings.username is not None) if token is None else token
    secret = kept_secret(folder.dashboard_token) if wanted else None
    shown = f"[{host}]" if ":" in host else host
    print(f"dashboard: http://{shown}:{port}/{_with_token(secret, folder.dashboard_token)}", flush=True)
    history = open_history(folder.dashboard_history)
    now_s = time.time()
    state = DashboardState(started_s=now_s)
    state.minutes.extend(history.minutes(now_s - HOUR_MINUTES * MINUTE_S))
    source = Source(settings, state, history, asyncio.Lock(), software_version())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn ends by raising the signal again
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(source, Access(secret, allow_try), host, port))
    finally:
        write_ended(state, history)
        history.close()


def _with_token(secret: str | None, file: Path) -> str:
    """Return the token as part of an address. A log gets only the name of its file: others may read it."""
    if secret is None:
        return ""
    return f"?token={secret}" if sys.stdout.isatty() else f"?token=... (the token is in {file})"


async def _serve(source: Source, access: Access, host: str, port: int) -> None:
    config = uvicorn.Config(
        web_app(source, access),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    work = [
        asyncio.create_task(follow(source.settings, source.state)),
        asyncio.create_task(keep(source.state, source.history, source.lock)),
    ]
    try:
        await server.serve()
    finally:
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)
