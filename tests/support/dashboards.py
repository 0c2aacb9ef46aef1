"""The dashboard as a process of its own, and what it answers."""

import asyncio
import contextlib
import io
import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from splitplace.bus.settings import Settings
from splitplace.commands.processes.children import Processes
from splitplace.commands.submit.asking import ask
from splitplace.messages.task import Answer, TaskRequest
from splitplace.simulator.calibration import Calibration, Range, Reach
from tests.support.waiting import PATIENCE_S


def picture() -> bytes:
    """A picture whose bottom right is brightest."""
    image = Image.new("L", (4, 4))
    image.putpixel((3, 3), 255)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def calibrated(folder: Path, slowest: float = 10.0, fastest: float = 10.0) -> Path:
    """A state folder with a calibration that reaches nodes of these speeds in GFLOP/s."""
    reach = Reach(
        node_scores=Range(least=slowest, greatest=fastest),
        batch=Range(least=1, greatest=8),
        links=Range(least=1, greatest=100),
        nodes=2,
        applications=("digits",),
    )
    made = Calibration(measured_on="two nodes in a test", tasks=100, hop_ms=2.0, reach=reach)
    folder.mkdir(exist_ok=True)
    (folder / "calibration.json").write_text(made.model_dump_json())
    return folder


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run asynchronous work in a thread: the browser's driver keeps an event loop in this one."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(PATIENCE_S)
    return results[0]


@dataclass
class Dashboard:
    """The dashboard of a system."""

    broker: str
    url: str
    processes: Processes
    nodes: tuple[str, ...] = ()

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return the code and the JSON of an answer."""
        request = urllib.request.Request(self.url + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def answers(self) -> bool:
        """Whether it is up and sees the whole system."""
        with contextlib.suppress(OSError):
            return bool(self.get("/api/now")[1]["online_nodes"] == len(self.nodes))
        return False

    def ask(self, deadline_ms: float = 30_000) -> Answer:
        """Send a task as a sensor and wait for its answer."""
        request = TaskRequest(images=(picture(),), deadline_ms=deadline_ms)
        answer: Answer = elsewhere(lambda: asyncio.run(ask(Settings(broker=self.broker), "tiny", request)))
        return answer


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running_dashboard(broker: str | None, folder: Path, *flags: str) -> Iterator[Dashboard]:
    """The dashboard of a system, as a process of its own. Without a broker, credentials name it."""
    port = free_port()
    named = () if broker is None else ("--broker", broker)
    where = ("--port", str(port), *named, "--state-dir", str(folder / "state"))
    with Processes(folder / "logs") as processes:
        processes.start("dashboard", (sys.executable, "-m", "splitplace", "dashboard", *where, *flags))
        yield Dashboard(broker or "", f"http://127.0.0.1:{port}", processes)
