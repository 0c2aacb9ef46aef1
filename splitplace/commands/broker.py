"""`splitplace broker`."""

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from splitplace.bus.settings import DEFAULT_PORT
from splitplace.commands.processes.broker import LOOPBACK, BrokerError, StartedKind, started_broker
from splitplace.commands.shared.places import StateDirOption, paths

_WATCH_S = 0.2


def command(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of MQTT 5.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 lets the whole network in, without a password.")
    ] = LOOPBACK,
    kind: Annotated[
        StartedKind | None, typer.Option(help="Broker to run.", show_default="what is installed")
    ] = None,
    legacy_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of MQTT 3.1.1 on the embedded broker (Mosquitto uses one port)."
        ),
    ] = None,
    state_dir: StateDirOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of its configuration, log and database.", show_default="broker in the state folder"
        ),
    ] = None,
) -> None:
    """Run a broker with the right settings.

    Runs Mosquitto if it is installed, else the broker in the package `iotcore`. Anybody who can reach its
    address may do everything. Beyond a network of your own, run Mosquitto with `mosquitto/mosquitto.conf` and
    its access list.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with started_broker(
            folder or paths(state_dir).broker, kind=kind, port=port, host=host, legacy_port=legacy_port
        ) as broker:
            print(
                f"{broker.kind} broker on {broker.url}, log in {broker.log_file} (Ctrl-C stops it)",
                flush=True,
            )
            while broker.pid is not None:
                time.sleep(_WATCH_S)
            raise BrokerError(f"the broker ended: {broker.log_file.read_text(errors='replace')[-1000:]}")
    except KeyboardInterrupt:
        print("stopped")
