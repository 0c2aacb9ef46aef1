"""Measure the resident memory of an idle node and of the services: `python -m benchmarks.memory`."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from splitplace.commands.processes.broker import available_kind, started_broker

MEGABYTE = 1e6
AIM_MB = 110
PARTS = {
    "edge node": ("splitplace.edge_node", "--node", "idle"),
    "gateway": ("splitplace.services.gateway",),
    "splitter": ("splitplace.services.splitter",),
    "placer": ("splitplace.services.placer",),
    "resource monitor": ("splitplace.services.resource_monitor",),
    "result aggregator": ("splitplace.services.result_aggregator",),
}


def main() -> None:
    """Start each process, let it settle, and print its resident memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each process to settle")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name, started_broker(Path(name), kind=available_kind()) as broker:
        options = {
            "edge node": ("--fragment-dir", f"{name}/fragments"),
            "gateway": ("--journal", f"{name}/journal"),
            "splitter": ("--state-dir", f"{name}/state"),
        }
        for part, command in PARTS.items():
            arguments = [sys.executable, "-m", *command, *options.get(part, ()), "--broker", broker.url]
            with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own
                time.sleep(seconds)
                resident = psutil.Process(process.pid).memory_info().rss / MEGABYTE
                process.terminate()
            print(
                f"{part:18}{resident:7.1f} MB resident" + (f" (aim: {AIM_MB})" if part == "edge node" else "")
            )


if __name__ == "__main__":
    main()
