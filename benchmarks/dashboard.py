"""Measure what the dashboard costs, with 100 nodes and 50 tasks a second: `python -m benchmarks.dashboard`.

Prints its memory, its CPU time when nobody looks and when a page is open, the time to the first picture, and
the script time of an update. Needs a Chromium (`apt install chromium`).
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages.cluster import ClusterState, NodeState, NodeStatus
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, VariantEstimate
from splitplace.messages.topics import CLUSTER_STATE, JOB_ACCEPTED, JOB_DECIDED, JOB_FINISHED, NODE_STATUS

PORT = 8495
NODES = 100
TASKS_PER_SECOND = 50
BOOT = "a" * 16
UPDATES = 15


def node(number: int, queue: int) -> NodeState:
    """A made-up node."""
    return NodeState(
        node=f"node-{number:03}",
        boot=BOOT,
        online=True,
        silent_ms=10,
        score=10,
        memory_budget_bytes=10**8,
        loaded=(f"{number:064x}",),
        queue_ms=queue,
        queue_length=queue,
        cpu_ratio=0.5,
        link_megabytes_per_second=10,
        timings=(),
    )


class Load:
    """Publishes a busy system from a thread of its own until stopped."""

    def __init__(self, url: str) -> None:
        self._settings = Settings(broker=url)
        self._ends = threading.Event()
        self.is_busy = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        """Announce the nodes; tasks flow while `is_busy`."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ends.set()
        self._thread.join()

    async def _run(self) -> None:
        bus, number = Bus(self._settings, "load"), 0
        async with bus:
            await bus.connected()
            for each in range(NODES):
                name = f"node-{each:03}"
                await bus.publish(NODE_STATUS, NodeStatus(node=name, boot=BOOT, online=True), node=name)
            while not self._ends.is_set():
                nodes = tuple(node(each, number % 7) for each in range(NODES))
                await bus.publish(CLUSTER_STATE, ClusterState(sequence=number, nodes=nodes))
                for _ in range(TASKS_PER_SECOND if self.is_busy.is_set() else 0):
                    await self._task(bus, number)
                    number += 1
                    await asyncio.sleep(0.8 / TASKS_PER_SECOND)
                await asyncio.sleep(0.1 if self.is_busy.is_set() else 1)

    async def _task(self, bus: Bus, number: int) -> None:
        shared = {"task": f"camera-{number % 20}.t{number}", "attempt": 1, "application": "toy", "batch": 1}
        slack = {"deadline_ms": 500, "slack_ms": 500}
        estimates = tuple(
            VariantEstimate(
                variant=f"v{each}", kind="whole", accuracy=0.9, predicted_ms=90, note="on node-001"
            )
            for each in range(6)
        )
        chosen = {
            "policy": "rule",
            "variant": "v1",
            "reason": "the most accurate in time",
            "predicted_ms": 90,
        }
        end = {
            "status": "answered",
            "reason": "in time",
            "variant": "v1",
            "nodes": ("node-001", "node-002"),
            "deadline_ms": 500,
            "response_ms": 80 + number % 50,
            "predicted_ms": 90,
            "on_time": True,
            "accuracy": None,
            "variant_accuracy": 0.9,
        }
        await bus.publish(JOB_ACCEPTED, TaskAccepted.model_validate({**shared, **slack, "input_bytes": 99}))
        decided = {**shared, **slack, **chosen, "alternatives": estimates}
        await bus.publish(JOB_DECIDED, TaskDecided.model_validate(decided))
        await bus.publish(JOB_FINISHED, TaskFinished.model_validate({**shared, **end}))


def cpu_share(process: psutil.Process, seconds: float) -> float:
    """Return the share of one core that a process uses for a while."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds


def look(page_name: str) -> tuple[float, list[float]]:
    """Open a page; return the time to its first picture and the script time of updates, in ms."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{PORT}/#/{page_name}")
        while page.evaluate("performance.getEntriesByName('update').length") <= UPDATES:
            page.wait_for_timeout(200)
        first = page.evaluate("performance.getEntriesByName('update')[0].startTime")
        times = page.evaluate("performance.getEntriesByName('update').map((entry) => entry.duration)")
        browser.close()
    return first, times


def measure(process: psutil.Process, load: Load, seconds: float) -> None:
    """Measure a dashboard that is starting, and print."""
    while not has_seen_all():
        time.sleep(0.1)
    print(f"idle, nobody looks:       {cpu_share(process, seconds):6.1%} of a core")
    load.is_busy.set()
    print(f"{TASKS_PER_SECOND} tasks/s, nobody looks: {cpu_share(process, seconds):6.1%} of a core")
    for name in ("now", "cluster", "tasks"):
        first, times = look(name)
        middle, most = statistics.median(times), max(times)
        print(f"{name:8} first picture {first:.0f} ms, update {middle:.1f} ms, at most {most:.1f}")
    print(f"memory after all of it:   {process.memory_info().rss / 2**20:6.1f} MiB resident")


def has_seen_all() -> bool:
    """Return whether the dashboard knows every node."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/now") as answer:
            return bool(json.load(answer)["online_nodes"] == NODES)
    except OSError:
        return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of CPU time")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as scratch, Processes(Path(scratch) / "logs") as processes:
        folder = Path(scratch)
        with started_broker(folder / "broker", kind="embedded") as broker:
            where = ("--broker", broker.url, "--port", str(PORT), "--state-dir", str(folder / "state"))
            child = processes.start("dashboard", (sys.executable, "-m", "splitplace", "dashboard", *where))
            process, load = psutil.Process(child.pid or 0), Load(broker.url)
            load.start()
            try:
                measure(process, load, seconds)
            finally:
                load.stop()


if __name__ == "__main__":
    main()
