"""Measure what the dashboard costs, with 100 nodes and 50 tasks a second: `python -m benchmarks.dashboard`.

Prints its memory, its CPU time when nobody looks and when a page is open, the time to the first picture, and
the script time of an update. Needs a Chromium (`apt install chromium`).
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

from benchmarks.busy_system import NODES, TASKS_PER_SECOND, BusySystem
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes

PORT = 8495
UPDATES = 15


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


def measure(process: psutil.Process, load: BusySystem, seconds: float) -> None:
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
            process, load = psutil.Process(child.pid or 0), BusySystem(broker.url)
            load.start()
            try:
                measure(process, load, seconds)
            finally:
                load.stop()


if __name__ == "__main__":
    main()
