"""`splitplace broker`."""

import signal
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Annotated

import typer

from splitplace.bus.hints import OPEN_TO_ALL, is_loopback
from splitplace.bus.own_addresses import own_addresses
from splitplace.bus.settings import DEFAULT_PORT, Settings
from splitplace.bus.supervisor import Supervisor
from splitplace.commands.processes.broker import LOOPBACK, Broker, BrokerError, StartedKind, started_broker
from splitplace.commands.secure.facts import Facts, secured_folder
from splitplace.commands.shared.announced import announced
from splitplace.commands.shared.places import StateDirOption, paths

EVERYWHERE = "0.0.0.0"  # noqa: S104 - only where it wants a password
_ALL_ADDRESSES = (EVERYWHERE, "::")
_WATCH_S = 0.2


def command(
    *,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of MQTT 5.", show_default="1883, or that of secure init"),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. 0.0.0.0 lets the whole network in, without a password unless the "
            "system is secured.",
            show_default="127.0.0.1, or 0.0.0.0 where the system is secured",
        ),
    ] = None,
    kind: Annotated[
        StartedKind | None, typer.Option(help="Broker to run.", show_default="what is installed")
    ] = None,
    legacy_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of MQTT 3.1.1 on the embedded broker (Mosquitto uses one port)."
        ),
    ] = None,
    announce: Annotated[
        bool,
        typer.Option(
            envvar="SPLITPLACE_ANNOUNCE",
            help="Tell this network where the broker is (mDNS), unless it listens on this machine only.",
        ),
    ] = True,
    state_dir: StateDirOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of its configuration, log and database.", show_default="broker in the state folder"
        ),
    ] = None,
) -> None:
    """Run a broker with the right settings.

    Runs Mosquitto if it is installed, else the broker in the package `iotcore`. Where `splitplace secure
    init` has made users, it lets in only them, over TLS. Else anybody who can reach its address may do
    everything.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    supervisor = Supervisor.found()  # Mosquitto would speak for us, before it can be reached as configured
    places = paths(state_dir)
    secured = secured_folder(places)
    facts = Facts.load(secured.facts) if secured.path.joinpath("broker").is_dir() else None
    try:
        with ExitStack() as stack:
            broker = stack.enter_context(
                started_broker(
                    folder or (places.broker if facts is None else secured.broker),
                    kind=kind or (None if facts is None else "mosquitto"),
                    port=port or (DEFAULT_PORT if facts is None else facts.port),
                    host=host or (LOOPBACK if facts is None else EVERYWHERE),
                    legacy_port=legacy_port,
                    secured=None if facts is None else secured.broker,
                    plugin=None if facts is None else Path(facts.plugin),
                )
            )
            if announce and not is_loopback(broker.host):
                stack.enter_context(_announced(broker, facts))
            print(
                f"{broker.kind} broker on {broker.url}, log in {broker.log_file} (Ctrl-C stops it)",
                flush=True,
            )
            if facts is None and not is_loopback(broker.host):
                print(OPEN_TO_ALL, flush=True)
            supervisor.ready(f"{broker.kind} on {broker.url}")
            certificate = secured.broker / "broker.pem"
            seen = facts and certificate.stat().st_mtime_ns
            while broker.pid is not None:
                time.sleep(_WATCH_S)
                if facts and (now := certificate.stat().st_mtime_ns) != seen:
                    seen = now
                    broker.restart()
            raise BrokerError(f"the broker ended: {broker.log_file.read_text(errors='replace')[-1000:]}")
    except KeyboardInterrupt:
        print("stopped")


def _announced(broker: Broker, facts: Facts | None) -> AbstractContextManager[None]:
    addresses = own_addresses() if broker.host in _ALL_ADDRESSES else (broker.host,)
    prefix = Settings.load().prefix if facts is None else facts.prefix
    return announced(addresses, broker.port, prefix, has_users=facts is not None)
