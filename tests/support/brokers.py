"""Real brokers for tests: a child process on a free loopback port that ends with the test.

`mosquitto_broker()` and `embedded_broker()` give the URL; a test that kills and restarts its broker makes a
`BrokerProcess` of its own.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

BrokerKind = Literal["mosquitto", "embedded"]

START_S = 10.0

_MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_packet_size 16777216
max_queued_messages 100000
max_inflight_messages 0
persistence false
log_type error
"""

_RUMQTTD = """\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 16777216
max_segment_count = 2
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 16777216
max_inflight_count = 1000
dynamic_filters = true
"""

_RUN_EMBEDDED = "import sys; sys.path.remove(''); from iotcore._serve import main; main()"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def mosquitto_path() -> str | None:
    """Where Mosquitto is installed; Debian keeps it outside the usual PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class BrokerProcess:
    """A broker that can be killed and started again on the same port. Keeps nothing on disk."""

    def __init__(self, kind: BrokerKind, port: int | None = None) -> None:
        self.kind = kind
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="splitplace-broker-")

    @property
    def url(self) -> str:
        """What to give as the setting `broker`."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it and wait until it listens. Raises RuntimeError where it does not."""
        self._process = subprocess.Popen(self._command(), stdin=subprocess.PIPE)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.02)
        self.kill()
        msg = f"the {self.kind} broker does not listen on port {self.port}"
        raise RuntimeError(msg)

    def kill(self) -> None:
        """End it at once (SIGKILL), and wait until its port is free."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def _command(self) -> list[str]:
        text = _MOSQUITTO if self.kind == "mosquitto" else _RUMQTTD
        file = Path(self._folder.name) / f"{self.kind}.toml"
        file.write_text(text.format(port=self.port))
        if self.kind == "embedded":
            return [sys.executable, "-c", _RUN_EMBEDDED, json.dumps({"config_path": str(file)})]
        path = mosquitto_path()
        if path is None:
            msg = "mosquitto is not installed; the tests need it (apt-get install mosquitto)"
            raise RuntimeError(msg)
        return [path, "-c", str(file)]


@contextlib.contextmanager
def mosquitto_broker() -> Iterator[str]:
    """URL of a Mosquitto of its own."""
    with BrokerProcess("mosquitto") as broker:
        yield broker.url


@contextlib.contextmanager
def embedded_broker() -> Iterator[str]:
    """URL of a rumqttd (the broker that pip can install) of its own."""
    with BrokerProcess("embedded") as broker:
        yield broker.url
