"""The process that `memory_limits` puts into a control group: it imports what a node does, and no more."""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.catalogue import Catalogue, Described
from splitplace.edge_node.disk import NodeDisk
from splitplace.edge_node.runtime import FragmentRuntime, load_stage
from splitplace.edge_node.sessions import limit_memory
from splitplace.edge_node.stage.measure import private_bytes
from splitplace.edge_node.stage_forms import StageForms
from splitplace.messages.application import Application
from splitplace.policies.memory import preparation

PREPARE_EVERY = 20
"""Loads after which the prepared form is thrown away."""


def main(kind: str, folder: Path, loads: int, budget: int) -> None:
    """Load and run the largest stage again and again, and say what that took."""
    sys.stdin.readline()
    application = Application.model_validate_json((folder / "application.json").read_bytes())
    catalogue = Catalogue(1.0)
    catalogue.add_application(application)
    described = max(catalogue, key=lambda each: each.fragment.weight_bytes)
    limit_memory(budget)
    disk = NodeDisk(folder, 1 << 40)
    forms = StageForms(disk, budget_bytes=budget)
    inputs = {
        tensor.name: np.ones((described.micro_batch, *tensor.spec.shape), tensor.spec.dtype)
        for tensor in described.stage.inputs
    }
    expected: dict[str, NDArray[Any]] | None = None
    for load in range(loads):
        if kind == "prepared" and load % PREPARE_EVERY == 0:
            disk.forms.free(1 << 40)
        before = private_bytes()
        reset_peak()
        began = time.perf_counter()
        runtime, reserved, prepared_s = opened(kind, disk, forms, described, budget)
        milliseconds = 1000 * (time.perf_counter() - began - prepared_s)
        loading = status("VmHWM")
        outputs = runtime.run_bundle(inputs)
        known = outputs if expected is None else expected
        if not all(np.array_equal(array, known[name]) for name, array in outputs.items()):
            raise RuntimeError("the stage answers otherwise than before")
        expected = dict(outputs)
        took = {
            "milliseconds": milliseconds,
            "private": private_bytes() - before,
            "reserved": reserved,
            "ratio": loading / status("VmRSS"),
        }
        if prepared_s:
            took["prepared_s"] = prepared_s
        print(json.dumps(took), flush=True)
        del runtime
        gc.collect()
    forms.close()


def opened(
    kind: str, disk: NodeDisk, forms: StageForms, described: Described, budget: int
) -> tuple[FragmentRuntime, int, float]:
    """Return the loaded stage, what is reserved for it, and the seconds of preparing it."""
    if kind == "joined":
        assert described.stage is not None  # noqa: S101 - it has pieces
        return load_stage(described.stage, disk.files.folder), described.fragment.peak_memory_bytes, 0.0
    began = time.perf_counter()
    form, prepared_s = forms.find(described), 0.0
    if form is None:
        forms.begin(described, preparation(described.fragment, budget)).result()
        prepared_s = time.perf_counter() - began
        form = forms.find(described)
        assert form is not None  # noqa: S101 - it was made just now
    forms.unmap(form)
    return forms.open(form), form.private_bytes, prepared_s


def status(key: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def reset_peak() -> None:
    """Let `VmHWM` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
