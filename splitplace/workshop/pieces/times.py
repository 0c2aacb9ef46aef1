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
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from splitplace.workshop.onnx.branches import reads, rename
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.places import Arrays, taken_inputs
from splitplace.workshop.onnx.sessions import session_of, session_options

ROUNDS = 20
_WARM_UP = 2
_NUMBER = re.compile(r"splitplace\.(\d+)")
_KERNEL = "_kernel_time"


def segment_milliseconds(model: onnx.ModelProto, ends: Sequence[int], images: int = 1) -> tuple[float, ...]:
    """Return the time of each segment of a network, in ms for one image, in one thread.

    Kernels of fused nodes count to the layer among them; those that ONNX Runtime adds count to the segment
    before them.

    Args:
        model: The network, small enough for one file.
        ends: Numbers of nodes of the data flow before each place between segments, ascending.
        images: Images in a run.
    """
    numbered = _numbered(model)
    with tempfile.TemporaryDirectory() as folder:
        profile, run_ms = _profile(numbered, Path(folder), images)
        events = json.loads(profile.read_text(encoding="utf-8"))
    graph = Graph(model)
    numbers = {
        event["name"]: number
        for event in events
        if _is_kernel(event) and (number := _number(event["name"], graph)) is not None
    }
    layers = _layers(graph, set(numbers.values()))
    rounds: list[dict[int, float]] = [defaultdict(float)]
    segment = 0
    for event in events:
        if event.get("name") == "model_run":  # at the end of a run
            rounds.append(defaultdict(float))
        elif _is_kernel(event):
            if event["name"] in numbers:
                layer = layers[numbers[event["name"]]]
                segment = bisect_right(ends, layer)
            rounds[-1][segment] += event["dur"]
    timed = [times for times in rounds if times][-ROUNDS:]
    least = [min(times[index] for times in timed) for index in range(len(ends) + 1)]
    total = sum(least) or 1.0
    return tuple(share / total * run_ms / images for share in least)


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and event["name"].endswith(_KERNEL)


def _number(kernel: str, graph: Graph) -> int | None:
    """Return the number of the node that a kernel is named after; None if ONNX Runtime added it."""
    found = _NUMBER.search(kernel)
    if found is not None:
        return int(found[1])
    made = (
        number
        for number, node in enumerate(graph.nodes)
        if any(kernel.startswith(name) for name in node.output if name in graph.outputs)
    )
    return next(made, None)


def _layers(graph: Graph, kernels: Collection[int]) -> Mapping[int, int]:
    """Return for each kernel the node whose time it is.

    A kernel is named after the last of the nodes that were fused into it, such as the ReLU behind a
    convolution. Its time is that of the layer among them: the last one that reads a matrix of weights. Nodes
    that have no kernel of their own were fused.
    """
    made_by = {name: number for number, node in enumerate(graph.nodes) for name in node.output if name}
    is_layer = graph.matrices()
    found = {}
    for kernel in kernels:
        fused = [kernel] if kernel < len(graph.nodes) else []
        for number in fused:  # grows
            makers = (made_by.get(name, kernel) for name in reads(graph.nodes[number]))
            fused += [maker for maker in makers if maker not in kernels and maker not in fused]
        found[kernel] = max((number for number in fused if is_layer[number]), default=kernel)
    return found


def _numbered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its nodes and their outputs numbered.

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
        name: index for index, node in reversed(list(enumerate(graph.nodes))) for name in reads(node)
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
        rename(node, names)
    return changed


def _profile(model: onnx.ModelProto, folder: Path, images: int) -> tuple[Path, float]:
    """Run a model some times. Return the file with the profile, and the least CPU time of a run in ms."""
    options = session_options()
    options.inter_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = session_of(model, options)
    weights = {tensor.name for tensor in model.graph.initializer}
    batch: Arrays = {
        value.name: _noise(value.type.tensor_type, images)
        for value in model.graph.input
        if value.name not in weights
    }
    batch = taken_inputs(partial(session.run, None), batch)
    run_ms = []
    for _ in range(_WARM_UP + ROUNDS):
        began = time.thread_time()
        session.run(None, batch)
        run_ms.append(1000 * (time.thread_time() - began))
    return Path(session.end_profiling()), min(run_ms)


def _noise(tensor: onnx.TypeProto.Tensor, images: int) -> NDArray[Any]:
    shape = [images, *(dimension.dim_value for dimension in tensor.shape.dim[1:])]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    random = np.random.default_rng(0)
    # What is no pixel may be a place in a table; Keras feeds these as floats.
    if dtype.kind == "f":
        return random.uniform(0, 1, shape).astype(dtype)
    return random.integers(0, 100 if dtype == np.uint8 else 2, shape).astype(dtype)
