"""Show that memory figures hold under real limits: `python -m benchmarks.memory_limits` (root).

Needs the extra `models`.

*Stage*: the largest of three stages of ResNet50, cut where their times are equal, in a control group with
what a node was promised: an idle node, a bare child process, and the budget, which is what `models add`
measures and writes into the manifest. The stage is loaded and run again and again, and prepared anew every
now and then. The same stage joined, without preparation, stands beside it.

*Nodes*: a network of 350 MB, eight nodes with a budget of 64 MiB, each in a group of its own, and tasks that
pass through all of them.

Weights are random. A process that is killed ends the benchmark with an error.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.memory_group import MemoryGroup, memory_group
from benchmarks.pieces import evenly_cut, exported
from benchmarks.pipeline import Pipeline
from splitplace.bus.connection import Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.edge_node.available_memory import CHILD_BYTES, PROCESS_BYTES
from splitplace.edge_node.disk import FILES
from splitplace.messages import topics
from splitplace.messages.application import INPUT, Application, Fragment, Stage, Variant
from splitplace.messages.cluster import NodeInfo, NodeVitals, PrepareFragments
from splitplace.messages.frames import Route
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.pieces import NamedChain, PieceCost, as_described
from splitplace.messages.tensors import TensorSpec
from splitplace.policies.memory import described_bytes, least_preparing_bytes, preparing_bytes
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.networks.catalogue import PRINTED_SIDES, network
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.graph import Graph, SpanCost
from splitplace.workshop.packing.memory import with_memory
from splitplace.workshop.pieces.chain import chain_of, run_stages, write_files
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.pieces.cut import CutChain
from splitplace.workshop.pieces.places import piece_places
from splitplace.workshop.pieces.times import segment_milliseconds

NODES = 8
NODE_BUDGET_MIB = 64
QUEUE_MIB = 16
MICRO_BATCH = 2
MOST_PIECES = 64
"""Cut wherever it can be: twelve pieces, one a block, cannot be dealt to nodes that hold less than two."""


def main() -> None:
    """Build the networks, and run both proofs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proof", nargs="?", choices=["stage", "nodes", "both"], default="both")
    parser.add_argument("--loads", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.proof in {"stage", "both"}:
            prove_stage(Path(folder), options.loads)
        if options.proof in {"nodes", "both"}:
            prove_nodes(Path(folder), options.tasks)


# --- one stage ------------------------------------------------------------------------------------------


def prove_stage(folder: Path, loads: int) -> None:
    """Load, run and prepare the largest stage within what is promised."""
    application, cut = in_stages(exported("resnet50_v2"), "resnet50", 3, by_time=True)
    largest = max(application.fragments, key=lambda fragment: fragment.weight_bytes)
    write_files(folder / "stage" / FILES, cut)
    reckoned = preparing_bytes(largest), described_bytes(largest)
    application = with_memory(application, folder / "stage" / FILES)
    largest = application.fragment(largest.sha256)
    (folder / "stage" / "application.json").write_text(application.model_dump_json())
    budget = max(preparing_bytes(largest), described_bytes(largest))
    limit = PROCESS_BYTES + CHILD_BYTES + budget
    print(
        f"ResNet50, stages of {', '.join(_mib(each.weight_bytes) for each in application.fragments)} MiB. "
        f"Largest: budget {_mib(budget)} MiB, limit of the group {_mib(limit)} MiB.\n"
        f"Promised by the manifest, to prepare and to run: {_mib(preparing_bytes(largest))} and "
        f"{_mib(described_bytes(largest))} MiB, measured; {' and '.join(map(_mib, reckoned))} MiB, from its "
        "weights and tensors.",
        flush=True,
    )
    for kind, count in (("prepared", loads), ("joined", 3)):
        with memory_group(kind, limit) as group:
            code, lines = in_group(group, kind, folder / "stage", count, budget)
            print(
                f"{kind}: {sum('milliseconds' in line for line in lines)} of {count} loads and runs, "
                f"{group.kills} killed, peak of the group {_mib(group.peak_bytes)} MiB"
            )
            if lines:
                print(f"  {summary(lines)}", flush=True)
            if kind == "prepared" and (code or group.kills):
                raise RuntimeError(f"the prepared stage did not keep to its limit (exit code {code})")


def in_group(
    group: MemoryGroup, kind: str, folder: Path, loads: int, budget: int
) -> tuple[int, list[dict[str, float]]]:
    """Run `memory_work` in a group. Return its exit code and what it said."""
    command = [sys.executable, "-m", "benchmarks.memory_work", kind, str(folder), str(loads), str(budget)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        group.add(process.pid)
        output, _ = process.communicate("go\n")
    return process.returncode, [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def summary(lines: Sequence[Mapping[str, float]]) -> str:
    """Say what the loads took."""
    loads = [line["milliseconds"] for line in lines]
    prepared = [line["prepared_s"] for line in lines if "prepared_s" in line]
    told = (
        f"load {np.median(loads):.0f} ms (median), private memory after a run at most "
        f"{_mib(max(line['private'] for line in lines))} MiB, reserved {_mib(lines[0]['reserved'])} MiB, "
        f"peak while loading {max(line['ratio'] for line in lines):.2f} times the resident memory in use"
    )
    return told + (f", prepared {len(prepared)} times in {np.median(prepared):.1f} s" if prepared else "")


# --- a chain of nodes -----------------------------------------------------------------------------------


def prove_nodes(folder: Path, tasks: int) -> None:
    """Send micro-batches through small nodes that each hold a stage of a large network."""
    side = PRINTED_SIDES["vision_transformer"]
    example = np.zeros((2, 3, side, side), np.uint8)
    model = export_network(network("vision_transformer", 1000, side=side, width=4.0), example)
    application, cut = in_stages(model, "vit", NODES)
    del model
    weights = [fragment.weight_bytes for fragment in application.fragments]
    print(
        f"Vision transformer of {sum(weights) / 1e6:.0f} MB on {NODES} nodes of {NODE_BUDGET_MIB} MiB; "
        f"largest stage {_mib(max(weights))} MiB, preparing takes "
        f"{_mib(max(map(preparing_bytes, application.fragments)))} MiB, "
        f"{_mib(max(map(least_preparing_bytes, application.fragments)))} with weights as they are.",
        flush=True,
    )
    pieces = folder / "vit"
    write_files(pieces, cut)
    images = np.random.default_rng(0).integers(0, 256, (tasks * MICRO_BATCH, 3, side, side), dtype=np.uint8)
    expected = np.concatenate(
        [
            run_stages(pieces, cut, (), images[start : start + MICRO_BATCH])
            for start in range(0, len(images), MICRO_BATCH)
        ]
    )
    ModelStore(folder / "store").save(application, (file.read_bytes() for file in pieces.iterdir()))
    del cut
    names = [f"n{index}" for index in range(NODES)]
    limit = PROCESS_BYTES + CHILD_BYTES + (NODE_BUDGET_MIB + 2 * QUEUE_MIB) * MEBIBYTE
    with (
        started_broker(folder / "broker", kind=available_kind()) as broker,
        Processes(folder) as processes,
        contextlib.ExitStack() as stack,
    ):

        def start(name: str, module: str, *flags: str) -> int:
            command = [sys.executable, "-m", f"splitplace.{module}", "--broker", broker.url]
            pid = processes.start(name, [*command, *flags]).pid
            assert pid is not None  # noqa: S101 - it was started just now
            return pid

        start(
            *("splitter", "services.splitter", "--store", str(folder / "store")),
            *("--state-dir", str(folder / "state")),
        )
        start("resource-monitor", "services.resource_monitor")
        groups = {name: stack.enter_context(memory_group(name, limit)) for name in names}
        stack.callback(processes.stop)
        for name in names:
            flags = ("--memory-budget-mb", str(NODE_BUDGET_MIB), "--queue-mb", str(QUEUE_MIB))
            pid = start(name, "edge_node", "--node", name, "--fragment-dir", str(folder / name), *flags)
            groups[name].add(pid)
        asyncio.run(send(Settings(broker=broker.url), application, names, images, expected))
        print(f"limit of each group {_mib(limit)} MiB")
        for name, group in groups.items():
            print(f"  {name}: peak of the group {_mib(group.peak_bytes)} MiB, {group.kills} killed")
            if group.kills:
                raise RuntimeError(f"{name} was killed")


async def send(
    settings: Settings,
    application: Application,
    names: Sequence[str],
    images: NDArray[np.uint8],
    expected: NDArray[Any],
) -> None:
    """Send all images through all nodes twice, compare the answers, and print what the nodes say."""
    pipeline = Pipeline(settings, application.name)
    vitals: dict[str, NodeVitals] = {}
    infos: dict[str, NodeInfo] = {}

    async def on_info(received: Received[NodeInfo]) -> None:
        infos[received.message.node] = received.message

    async def on_vitals(received: Received[NodeVitals]) -> None:
        vitals[received.message.node] = received.message

    pipeline.bus.subscribe(topics.NODE_INFO, on_info)
    pipeline.bus.subscribe(topics.NODE_VITALS, on_vitals)
    route: Route | None = None
    for stage, node in zip(reversed(application.variants[0].stages), reversed(names), strict=True):
        after = () if route is None else (route,)
        route = Route(stage=stage.name, node=node, fragment=stage.fragment, next=after)
    assert route is not None  # noqa: S101 - there are stages
    async with pipeline.bus:
        async with asyncio.timeout(300.0):
            while pipeline.online < len(names):  # noqa: ASYNC110 - set by another process
                await asyncio.sleep(0.1)
        began = time.perf_counter()
        for stage, node in zip(application.variants[0].stages, names, strict=True):
            wanted = PrepareFragments(node=node, task="benchmark.0", attempt=1, fragments=(stage.fragment,))
            await pipeline.bus.publish(topics.NODE_PREPARE, wanted)
        async with asyncio.timeout(900.0):
            while sum(bool(told.loaded) for told in infos.values()) < len(names):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        print(f"all nodes fetched, prepared and loaded their stages in {time.perf_counter() - began:.0f} s")
        for when in ("first", "then"):
            took_s, logits = await pipeline.run(route, images, MICRO_BATCH)
            difference = np.abs(logits - expected).max() / np.abs(expected).max()
            print(
                f"{when}: {len(images) // MICRO_BATCH} micro-batches of {MICRO_BATCH} in {took_s:.1f} s, "
                f"greatest relative difference to the whole network {difference:.1e}",
                flush=True,
            )
            if not difference < 1e-4:  # noqa: PLR2004 - relative; NaN counts as well
                raise RuntimeError("the nodes give other answers than the whole network")
        await asyncio.sleep(2.0)
    for name in names:
        told = vitals[name]
        print(
            f"  {name}: reserved {_mib(told.loaded_bytes)} MiB, mapped {_mib(told.mapped_bytes)} MiB, "
            f"resident {_mib(told.resident_bytes)} MiB, loaded in {(infos[name].load_ms or 0) / 1000:.1f} s"
        )


# --- networks in stages ---------------------------------------------------------------------------------


def in_stages(
    model: onnx.ModelProto, name: str, count: int, *, by_time: bool = False
) -> tuple[Application, CutChain]:
    """Return an application whose only variant is a chain of stages, and its pieces.

    Args:
        model: The network.
        name: Name of the application.
        count: Number of stages.
        by_time: Whether their times are to be equal; else their weights are.
    """
    cut = chain_of(model) if by_time else evenly_cut(model, MOST_PIECES)
    ends = [tuple(tensor.name for tensor in bundle) for bundle in cut.chain.bundles[1:-1]]
    whole = with_constants_as_weights(model)
    places = {place.tensors: place.end for place in piece_places(whole)}
    nodes = [places[tensors] for tensors in ends]
    weights = [float(piece.weights_bytes) for piece in cut.chain.pieces]
    cuts = balanced(list(segment_milliseconds(whole, nodes)) if by_time else weights, count)
    parts = Graph(whole).spans([nodes[place - 1] for place in cuts])
    bounds = list(itertools.pairwise((0, *cuts, len(weights))))
    cost = PieceCost(
        milliseconds_per_image=1.0, weight_bytes=0, activation_bytes_per_image=0, flops_per_image=0
    )
    chain = NamedChain(name="whole", chain=cut.chain, costs=(cost,) * len(weights))
    fragments = tuple(
        described_run(chain, first, end, part) for (first, end), part in zip(bounds, parts, strict=True)
    )
    (labels,) = fragments[-1].output.shape
    stages = tuple(
        Stage(
            name=f"stage-{index}",
            fragment=fragment.sha256,
            source=f"stage-{index - 1}" if index else INPUT,
            classes=tuple(range(labels)) if index == count - 1 else (),
        )
        for index, fragment in enumerate(fragments)
    )
    variant = Variant(
        name="layer", kind="layer", stages=stages, micro_batch=MICRO_BATCH, accuracy=1.0, accuracy_images=0
    )
    application = Application(
        name=name,
        title=name,
        input=TensorSpec(dtype=fragments[0].input.dtype, shape=fragments[0].input.shape),
        labels=tuple(f"class {number}" for number in range(labels)),
        default_deadline_ms=600_000.0,
        reference_score=100.0,
        variants=(variant,),
        fragments=fragments,
        chains=(chain,),
    )
    return application, cut


def described_run(chain: NamedChain, first: int, end: int, part: SpanCost) -> Fragment:
    """Return a run of pieces as a fragment, with nominal times."""
    stage = chain.chain.stage(first, end)
    (source, sources), (result, results) = as_described(stage.inputs), as_described(stage.outputs)
    return Fragment(
        sha256=stage.sha256,
        file_bytes=sum(file.file_bytes for file in stage.files),
        weight_bytes=part.weight_bytes,
        peak_memory_bytes=part.weight_bytes + MICRO_BATCH * part.activation_bytes_per_image,
        flops_per_image=1.0,
        milliseconds_per_image=100.0,
        milliseconds_per_call=1.0,
        input=source,
        output=result,
        inputs=sources,
        outputs=results,
        largest_weight_bytes=part.largest_weight_bytes,
        chain=chain.name,
        first=first,
        end=end,
    )


def balanced(costs: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the cuts whose greatest stage costs least, by dynamic programming."""
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    best: dict[int, tuple[float, tuple[int, ...]]] = {end: (sums[end], ()) for end in range(1, len(sums))}
    for stages in range(2, count + 1):
        best = {
            end: min(
                (max(best[place][0], sums[end] - sums[place]), (*best[place][1], place))
                for place in range(stages - 1, end)
            )
            for end in range(stages, len(sums))
        }
    return best[len(costs)][1]


def _mib(size: float) -> str:
    return f"{size / MEBIBYTE:.1f}"


if __name__ == "__main__":
    main()
