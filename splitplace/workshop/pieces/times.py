"""Time the segments of a network inside runs of the whole.

A segment that is timed alone misses what ONNX Runtime fuses across its ends: sums of such times are 4 to 19 %
above the time of the whole. So the whole runs under ONNX Runtime's profiler. Each kernel has the name of a
node or tensor of the graph, also when nodes were fused, and those are numbered beforehand.

The profiler reads the clock, which other work on the machine disturbs. So the least time of each segment
counts, and all are scaled so that their sum is the CPU time of a run.
"""

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from splitplace.workshop.onnx.graph import Graph

ROUNDS = 20
_WARM_UP = 2
_NUMBER = re.compile(r"splitplace\.(\d+)")
_KERNEL = "_kernel_time"


def segment_milliseconds(
    model: onnx.ModelProto, tensors: Sequence[str], images: int = 1
) -> tuple[float, ...]:
    """Return the time of each segment of a network, in ms for one image, in one thread.

    Kernels that ONNX Runtime adds without a name of the graph count to the segment before them.

    Args:
        model: The network, small enough for one file.
        tensors: The tensors between neighbouring segments, in order.
        images: Images in a run.
    """
    numbered, starts = _numbered(model, tensors)
    with tempfile.TemporaryDirectory() as folder:
        profile, run_ms = _profile(numbered, Path(folder), images)
        events = json.loads(profile.read_text(encoding="utf-8"))
    rounds: list[dict[int, float]] = []
    segment = 0
    for event in events:
        if event.get("name") == "model_run":  # at the end of a run
            rounds.append(defaultdict(float))
            continue
        if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
            continue
        found = _NUMBER.search(event["name"])
        if found is not None:
            segment = int(np.searchsorted(starts, int(found[1]), side="right"))
        if not rounds:
            rounds.append(defaultdict(float))
        rounds[-1][segment] += event["dur"]
    timed = [times for times in rounds if times][_WARM_UP:]
    least = [min(times[index] for times in timed) for index in range(len(tensors) + 1)]
    total = sum(least) or 1.0
    return tuple(share / total * run_ms / images for share in least)


def _numbered(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, list[int]]:
    """Return the model with its nodes and their outputs numbered, and where each segment starts.

    Nodes beside the data flow get the number of the first node that reads them.
    """
    graph = Graph(model)
    position = {name: index for index, node in enumerate(graph.nodes) for name in node.output if name}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.value_info[:]
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {}
    first_reader = {
        name: index for index, node in reversed(list(enumerate(graph.nodes))) for name in node.input
    }
    for index, node in enumerate(changed.graph.node):
        number = next((position[name] for name in node.output if name in position), None)
        if number is None:
            number = min((first_reader.get(name, len(graph.nodes)) for name in node.output), default=0)
        node.name = f"splitplace.{number}.{index}"
        for output, name in enumerate(node.output):
            if name and name not in fixed:
                names[name] = f"{node.name}.{output}"
    for node in changed.graph.node:
        for part in (node.input, node.output):
            part[:] = [names.get(name, name) for name in part]
    return changed, [position[name] + 1 for name in tensors]


def _profile(model: onnx.ModelProto, folder: Path, images: int) -> tuple[Path, float]:
    """Run a model some times. Return the file with the profile, and the least CPU time of a run in ms."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    tensor = model.graph.input[0].type.tensor_type
    shape = [images, *(dimension.dim_value for dimension in tensor.shape.dim[1:])]
    noise = np.random.default_rng(0).integers(0, 100, shape)
    batch = noise.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    run_ms = []
    for _ in range(_WARM_UP + ROUNDS):
        began = time.thread_time()
        session.run(None, {session.get_inputs()[0].name: batch})
        run_ms.append(1000 * (time.thread_time() - began))
    return Path(session.end_profiling()), min(run_ms)
