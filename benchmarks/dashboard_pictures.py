"""Take pictures of the dashboard with a real system at work: `python -m benchmarks.dashboard_pictures`.

Needs a Chromium (`apt install chromium`). Writes `docs/pictures/dashboard-PAGE.png`.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgpack
from playwright.sync_api import Page, sync_playwright

from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages.topics import TASK_NAMED

NODES = {
    "kitchen": ("--cpu-share", "0.15", "--memory-budget-mb", "24"),
    "garage": ("--cpu-share", "0.1", "--memory-budget-mb", "12"),
    "attic": ("--cpu-share", "0.2", "--memory-budget-mb", "48"),
    "cellar": ("--cpu-share", "0.05", "--memory-budget-mb", "12"),
}
SENSORS = {"front door": 400.0, "letter box": 150.0, "meter": 2000.0}
"""Sensors, and the deadlines of their tasks in ms."""
PORT = 8494
ROUNDS = 30
WIDTH, HEIGHT = 1200, 800
IMAGES = sorted(Path("examples/images").glob("digit-*.png"))


@contextlib.contextmanager
def system(folder: Path) -> Iterator[str]:
    """A system on small nodes and its dashboard; the address of the broker."""
    os.environ["SPLITPLACE_STATE_DIR"] = str(folder)
    os.environ["SPLITPLACE_DISCOVER"] = "false"
    with (
        started_broker(folder / "broker", kind="embedded") as broker,
        Processes(folder / "logs") as processes,
    ):

        def start(name: str, *command: str) -> None:
            processes.start(name, (sys.executable, "-m", "splitplace", *command, "--broker", broker.url))

        for service in ("gateway", "splitter", "placer", "resource-monitor", "result-aggregator"):
            start(service, service)
        start("dashboard", "dashboard", "--port", str(PORT), "--pictures")
        start("watch", "watch", "--plain", "--record", str(folder / "run.jsonl"))
        for node, flags in NODES.items():
            start(node, "node", "--node", node, *flags)
        yield broker.url


async def send(url: str) -> None:
    """Send tasks as sensors do."""
    bus = Bus(Settings(broker=url), "pictures")
    async with bus:
        await bus.connected()
        for number in range(ROUNDS):
            for sensor, deadline_ms in SENSORS.items():
                images = [
                    IMAGES[(number + each) % len(IMAGES)].read_bytes() for each in range(1 + 3 * (number % 3))
                ]
                task = msgpack.packb({"images": images, "deadline_ms": deadline_ms})
                topic = TASK_NAMED.at(application="mnist", client=sensor, task=f"t{number}")
                await bus.publish_raw(topic, bytes(task))
            await asyncio.sleep(0.7)


def wait_for(path: str, wanted: bytes) -> None:
    """Wait until an answer of the dashboard holds this."""
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}") as answer:
            if wanted in answer.read():
                return
        time.sleep(0.5)
    sys.exit(f"{path} never showed {wanted!r}")


def calibrate(scratch: Path) -> None:
    """Fit the simulation to the tasks that were just sent."""
    log = str(scratch / "run.jsonl")
    command = (sys.executable, "-m", "splitplace", "calibrate", log, "--state-dir", str(scratch))
    subprocess.run(command, check=True)  # noqa: S603 - our own


def take(page: Page, folder: Path, scratch: Path) -> None:
    """Open every page and write its picture."""
    for name in ("now", "cluster", "tasks", "decisions", "networks", "sensors"):
        page.goto(f"http://127.0.0.1:{PORT}/#/{name}")
        page.wait_for_selector("main h1")
        page.wait_for_timeout(2500)
        page.screenshot(path=folder / f"dashboard-{name}.png")
    page.goto(f"http://127.0.0.1:{PORT}/#/tasks")
    page.locator("tbody tr", has_text="→").or_(page.locator("tbody tr")).first.locator("a").click()
    page.wait_for_selector("#timeline")
    page.wait_for_timeout(1000)
    page.screenshot(path=folder / "dashboard-task.png", full_page=True)
    page.goto(f"http://127.0.0.1:{PORT}/#/try")
    page.locator("#application").select_option("mnist")
    page.locator("#deadline").fill("5000")
    page.locator("#picture").set_input_files(IMAGES[-1])
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector("#label")
    page.wait_for_selector("#others")
    page.screenshot(path=folder / "dashboard-try.png")
    calibrate(scratch)
    page.goto(f"http://127.0.0.1:{PORT}/#/whatif")
    page.locator("#remove").select_option("attic")
    page.get_by_role("button", name="Simulate").click()
    page.wait_for_selector("#verdict", timeout=300_000)
    page.screenshot(path=folder / "dashboard-whatif.png")


def main() -> None:
    """Run the system, send tasks, take pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/pictures"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, system(Path(scratch)) as url:
        wait_for("/api/now", f'"online_nodes":{len(NODES)}'.encode())
        wait_for("/api/networks", b"mnist")
        asyncio.run(send(url))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            take(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}), folder, Path(scratch))
            browser.close()
    print(f"pictures in {folder}")


if __name__ == "__main__":
    main()
