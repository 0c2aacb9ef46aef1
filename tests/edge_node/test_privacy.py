"""A node tells nobody else that it runs, and writes nothing outside its own folders."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge_node.world import routes, world
from tests.support.tiny_application import tiny_images
from tests.support.waiting import until

CHECKOUT = Path(__file__).parents[2]
IMPORT = re.compile(r"^\s*(?:import|from) onnxruntime\b", re.MULTILINE)

RUNTIME = """
import json, os, sys
import {package}
import numpy
before = len(os.listdir("/proc/self/task"))
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(json.dumps(len(os.listdir("/proc/self/task")) - before))
"""
"""Its telemetry is a thread that starts at the import."""


def environment(home: Path) -> dict[str, str]:
    """An environment with a home of its own, where nobody has decided about telemetry."""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home.mkdir()
    return {**kept, "HOME": str(home), "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("package", ["splitplace", "nemesis", "benchmarks"])
def test_onnx_runtime_reports_nothing_once_the_package_was_imported(package: str, tmp_path: Path) -> None:
    program = RUNTIME.replace("{package}", package)
    command = [sys.executable, "-c", program, str(CHECKOUT / "edge_node" / "benchmark.onnx")]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment(tmp_path / "home"), cwd=tmp_path
    )
    assert json.loads(done.stdout) == 0, "ONNX Runtime has started a thread"
    assert list((tmp_path / "home").rglob("*")) == []


def test_only_packages_that_switch_the_telemetry_off_import_onnx_runtime() -> None:
    rooms = ("splitplace", "edge_node", "services", "messages", "nemesis", "benchmarks")
    found = {path.relative_to(CHECKOUT) for path in CHECKOUT.rglob("*.py") if _imports_runtime(path)}
    assert found
    outside = {path for path in found if path.parts[0] not in (*rooms, "tests")}
    assert outside == set(), "import splitplace first there, and add the folder to this list"


def _imports_runtime(path: Path) -> bool:
    parts = path.relative_to(CHECKOUT).parts
    is_ours = parts[0] not in {"build", "dist"} and not any(part.startswith(".") for part in parts)
    return is_ours and IMPORT.search(path.read_text()) is not None


async def test_a_node_writes_nothing_outside_its_own_folders(mosquitto_url: str, tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "splitplace.edge_node", "--node", "n1", "--broker", mosquitto_url]
    images, _ = tiny_images(4)
    async with world(mosquitto_url, tmp_path / "world") as w:
        node = await asyncio.create_subprocess_exec(
            *command,
            *("--fragment-dir", str(tmp_path / "fragments"), "--vitals-every-s", "0.2"),
            env={**environment(home), "TMPDIR": str(elsewhere), "TEMP": str(elsewhere)},
            cwd=elsewhere,
        )
        try:
            await until(lambda: w.outside.statuses and w.outside.statuses[-1].online, 30)
            (route,) = routes(w.application.variant("whole"), ["n1"])
            await w.outside.send(route, images, task="c.1")
            await until(lambda: w.outside.outputs, 20)
        finally:
            node.terminate()
            await node.wait()
    assert list(home.rglob("*")) == []
    assert list(elsewhere.rglob("*")) == []
