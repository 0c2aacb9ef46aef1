"""A running system, its dashboard, and a real browser that looks at it."""

import asyncio
import contextlib
import io
import json
import shutil
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from splitplace.bus.settings import Settings
from splitplace.commands.processes.children import Processes
from splitplace.commands.submit import ask
from splitplace.messages.task import Answer, TaskRequest
from tests.support.waiting import PATIENCE_S, block_until
from tests.support.whole_system import Setup, System, running_system


def picture() -> bytes:
    """A picture whose bottom right is brightest."""
    image = Image.new("L", (4, 4))
    image.putpixel((3, 3), 255)
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


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
def running_dashboard(broker: str, folder: Path, *flags: str) -> Iterator[Dashboard]:
    """The dashboard of a system, as a process of its own."""
    port = free_port()
    where = ("--port", str(port), "--broker", broker, "--state-dir", str(folder / "state"))
    with Processes(folder / "logs") as processes:
        processes.start("dashboard", (sys.executable, "-m", "splitplace", "dashboard", *where, *flags))
        yield Dashboard(broker, f"http://127.0.0.1:{port}", processes)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Five services and three nodes."""
    with running_system(tmp_path_factory.mktemp("system"), "embedded", Setup(node_options=())) as system:
        yield system


@pytest.fixture(scope="module")
def dashboard(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard that sees all of it."""
    with running_dashboard(system.broker.url, tmp_path_factory.mktemp("dashboard")) as dashboard:
        dashboard.nodes = system.nodes
        block_until(dashboard.answers)
        yield dashboard


@pytest.fixture(scope="module")
def browser(dashboard: Dashboard) -> Iterator[Browser]:
    """Debian's Chromium, which CI installs."""
    assert dashboard.url
    path = shutil.which("chromium")
    assert path, "no browser: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose errors, and whatever its policy blocks, fail the test."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
    yield page
    page.close()
    assert errors == []
