"""Find a broker, or start one (docs/decisions/0006-broker-discovery.md).

In this order: the broker that was given; `mosquitto`, as a child process with our configuration; rumqttd from
the wheel `iotcore`. Otherwise an error says what to install.
"""

import contextlib
import errno
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splitplace.commands.processes.dies_with_parent import tied_to_this_process
from splitplace.commands.processes.secured_mosquitto import plugin_path, secured_settings
from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import MAX_PACKET_BYTES, MEBIBYTE

Kind = Literal["given", "mosquitto", "embedded"]
StartedKind = Literal["mosquitto", "embedded"]

LOOPBACK = "127.0.0.1"

MOSQUITTO_SETTINGS: Mapping[str, str] = {
    "allow_anonymous": "true",
    "persistence": "true",
    "autosave_interval": "300",
    "max_packet_size": str(MAX_PACKET_BYTES),
    "max_queued_messages": "100000",
    "max_queued_bytes": str(256 * MEBIBYTE),
    "max_inflight_messages": "256",
    "set_tcp_nodelay": "true",
}
"""Settings of Mosquitto for SplitPlace, the same as in `mosquitto/mosquitto.conf`.

The default queue of 1000 messages overflows silently, and later versions default to packets of 2 MB. Saving
all that waits stops Mosquitto for as long as it takes, so it happens seldom.
"""

_SEARCHED = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))
"""Where Mosquitto lies on systems that keep it outside a user's PATH."""

NO_USERS = (
    "the embedded broker knows neither users nor access rules, so nothing can be secured there: install "
    "Mosquitto 2.0.11 or later (apt install mosquitto)"
)

_PRIVATE = 0o077
"""What Mosquitto writes is for its own user only: the plugin's file with the users, and what clients sent."""

_START_S = 10.0
_STOP_S = 5.0
_SAVE_S = 60.0
"""Patience before a restart: Mosquitto would lose what it has not saved by then."""
_POLL_S = 0.02

_RUMQTTD = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 2
"""

_RUMQTTD_LISTENER = """
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_packet_bytes}
max_inflight_count = 256
dynamic_filters = true
"""

_RUN_RUMQTTD = (
    "import logging, sys; logging.disable(); "  # it logs every packet as an error
    "from iotcore import IotCoreBroker; IotCoreBroker(config_path=sys.argv[1]).run_forever()"
)


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # the broker logs the ids of its clients


class BrokerError(SplitPlaceError):
    """No broker could be found or started."""


def mosquitto_path() -> str | None:
    """Return the path of Mosquitto on this machine, or None."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_SEARCHED)


def available_kind() -> StartedKind:
    """Return the kind of broker that can be started here.

    Raises:
        BrokerError: Neither Mosquitto nor the wheel `iotcore` is installed.
    """
    if mosquitto_path() is not None:
        return "mosquitto"
    if importlib.util.find_spec("iotcore") is not None:
        return "embedded"
    raise BrokerError(
        "no MQTT broker: name one (--broker mqtt://host:1883), install Mosquitto (apt install mosquitto, "
        "brew install mosquitto), or install SplitPlace as 'splitplace[broker]', which brings one"
    )


def free_port(host: str = LOOPBACK) -> int:
    """Return a TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """A broker as a child process that ends with this one.

    It can be killed and started again on the same port; Mosquitto then still has what it kept on disk.
    """

    def __init__(
        self,
        kind: StartedKind,
        folder: Path,
        *,
        port: int,
        host: str = LOOPBACK,
        legacy_port: int | None = None,
        secured: Path | None = None,
        plugin: Path | None = None,
    ) -> None:
        """Describe a broker that is not started yet.

        Args:
            kind: What to run.
            folder: For its configuration, log and database; made if missing.
            port: Port for MQTT 5.
            host: Address to listen on; anything but loopback opens it to the network without a password.
            legacy_port: Port for MQTT 3.1.1 of rumqttd (Mosquitto speaks both on one port).
            secured: Folder with certificate and users: only they come in. None = everybody may do everything.
            plugin: Mosquitto's plugin for users; by default where it is installed.

        Raises:
            BrokerError: The embedded broker cannot be secured.
        """
        if secured is not None and kind == "embedded":
            raise BrokerError(NO_USERS)
        self.kind = kind
        self.host = host
        self.port = port
        self.legacy_port = legacy_port
        self._folder = folder
        self._secured = secured
        self._plugin = plugin
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL for the setting `broker`."""
        host = LOOPBACK if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - only compared
        return f"{'mqtt' if self._secured is None else 'mqtts'}://{host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id; None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def log_file(self) -> Path:
        """Log of the broker."""
        return self._folder / "broker.log"

    def start(self) -> None:
        """Start the broker and wait until it listens.

        Raises:
            BrokerError: The port is taken, or it does not come up in ten seconds.
        """
        self._check_port()
        command = tied_to_this_process(self._command())
        with open(self.log_file, "ab", opener=_for_owner) as log:
            self._process = process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                umask=_PRIVATE,
            )
        deadline = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline:
            if self._listens():
                return
            time.sleep(_POLL_S)
        self.stop()
        said = self.log_file.read_text(errors="replace")[-1000:]
        raise BrokerError(f"the {self.kind} broker did not come up on {self.host}:{self.port}: {said}")

    def stop(self, patience_s: float = _STOP_S) -> None:
        """End the broker: ask first, so that it writes its database, then kill it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """End the broker in order, so that it keeps messages and sessions, and start it with new files.

        Mosquitto 2.0 would also read a certificate on SIGHUP. But then it enters absent clients whom it would
        no longer let in into its list of sessions a second time, and uses freed memory once they expire
        (fixed by its pull request 3341).

        Raises:
            BrokerError: It does not come up.
        """
        self.stop(_SAVE_S)
        self.start()

    def kill(self) -> None:
        """End the broker at once, as a crash would (SIGKILL)."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                reason = f"cannot listen on {self.host}:{self.port}: {error.strerror}"
                if error.errno == errno.EADDRINUSE:
                    reason += " (does a broker run there already? use that one, or choose another --port)"
                raise BrokerError(reason) from error

    def _listens(self) -> bool:
        host = LOOPBACK if self.host == "0.0.0.0" else self.host  # noqa: S104 - only compared
        with contextlib.suppress(OSError), socket.create_connection((host, self.port), 0.2):
            return True
        return False

    def _command(self) -> list[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "mosquitto":
            path = mosquitto_path()
            if path is None:
                raise BrokerError("mosquitto is not installed")
            return [path, "-c", str(self.write_configuration())]
        file = self._folder / "rumqttd.toml"
        file.write_text(self._rumqttd_configuration())
        return [sys.executable, "-P", "-c", _RUN_RUMQTTD, str(file)]

    def write_configuration(self) -> Path:
        """Write Mosquitto's configuration into the folder; return its path. Raises OSError, NoPluginError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / "mosquitto.conf"
        file.write_text(self._mosquitto_configuration())
        return file

    def _mosquitto_configuration(self) -> str:
        lines = [
            f"listener {self.port} {self.host}",
            # Started by root it would otherwise become another user, who cannot read this folder.
            *(["user root"] if os.geteuid() == 0 else []),
            f"persistence_location {self._folder.absolute()}/",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
        ]
        settings = dict(MOSQUITTO_SETTINGS)
        if self._secured is not None:
            settings |= secured_settings(self._secured.absolute(), self._plugin or plugin_path())
        lines += [f"{name} {value}" for name, value in settings.items()]
        return "\n".join(lines) + "\n"

    def _rumqttd_configuration(self) -> str:
        ports = {"v5": self.port, "v4": self.legacy_port}
        listeners = [
            _RUMQTTD_LISTENER.format(
                version=version, host=self.host, port=port, max_packet_bytes=MAX_PACKET_BYTES
            )
            for version, port in ports.items()
            if port is not None
        ]
        return _RUMQTTD + "".join(listeners)


@contextlib.contextmanager
def started_broker(
    folder: Path,
    *,
    kind: StartedKind | None = None,
    port: int | None = None,
    host: str = LOOPBACK,
    legacy_port: int | None = None,
    secured: Path | None = None,
    plugin: Path | None = None,
) -> Iterator[Broker]:
    """Run a broker inside the `with` block.

    Args:
        folder: For its configuration, log and database.
        kind: What to run; by default what is installed.
        port: Port for MQTT 5; by default a free one.
        host: Address to listen on.
        legacy_port: See `Broker`.
        secured: See `Broker`.
        plugin: See `Broker`.

    Raises:
        BrokerError: There is nothing to start, or it does not start.
    """
    broker = Broker(
        kind or available_kind(),
        folder,
        port=port or free_port(host),
        host=host,
        legacy_port=legacy_port,
        secured=secured,
        plugin=plugin,
    )
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@dataclass(frozen=True, slots=True)
class FoundBroker:
    """The broker to use."""

    kind: Kind
    url: str
    own: Broker | None
    """The child process; None if the broker was given."""


@contextlib.contextmanager
def found_broker(url: str | None, folder: Path, host: str = LOOPBACK) -> Iterator[FoundBroker]:
    """Use the broker at `url` as it is; without one, run a broker on `host` (see `started_broker`).

    Raises:
        BrokerError: None is given and none can be started.
    """
    if url is not None:
        yield FoundBroker("given", url, None)
        return
    with started_broker(folder, host=host) as broker:
        yield FoundBroker(broker.kind, broker.url, broker)
