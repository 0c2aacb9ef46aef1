"""Measure the time of placements in large clusters: `python -m benchmarks.placement`. No broker.

One new task of four stages, and one rearrangement of 100 active fragments, for clusters of several sizes.
Then a task of a shipped network whose stages `earliest-finish` chooses: searched anew, known,
and foreseen by the splitter.
CPU time of this process: other work on the machine does not count.
"""

import argparse
from collections.abc import Callable
from itertools import count, pairwise
from random import Random
from time import process_time
from typing import cast, get_args

import numpy as np

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.messages.tensors import TensorSpec
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import (
    ActiveJob,
    Infeasible,
    Placement,
    PlacementName,
    PlacementRequest,
    Rearranging,
    place,
    placement_policy,
)
from splitplace.policies.placement.foreseen import foreseen_of
from splitplace.policies.placement.regroup import USED_FOR_MS
from splitplace.policies.prediction import Job
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.chains import nominal_chain

STAGES = 4
TASKS = 25
"""Jobs of four stages each: 100 fragments."""
BATCH = 64
DEADLINE_MS = 2_000.0
REFERENCE_SCORE = 100.0
PIXELS = TensorSpec(dtype="uint8", shape=(32, 32, 3))
FEATURES = TensorSpec(dtype="float16", shape=(4096,))
LOGITS = TensorSpec(dtype="float32", shape=(2,))


def application() -> Application:
    """Make an application with a chain of four stages."""
    tensors = [PIXELS, *[FEATURES] * (STAGES - 1), LOGITS]
    chains = tuple(
        nominal_chain(f"s{number}", source, target, 1 << 22)
        for number, (source, target) in enumerate(pairwise(tensors))
    )
    fragments = tuple(
        Fragment(
            sha256=chain.chain.stage(0, 1).sha256,
            file_bytes=1 << 22,
            weight_bytes=1 << 22,
            peak_memory_bytes=1 << 23,
            flops_per_image=1e8,
            milliseconds_per_image=1.0 + number,
            milliseconds_per_call=0.2,
            input=tensors[number],
            output=tensors[number + 1],
            chain=chain.name,
            end=1,
        )
        for number, chain in enumerate(chains)
    )
    stages = tuple(
        Stage(
            name=f"s{number}",
            fragment=fragments[number].sha256,
            source=f"s{number - 1}" if number else "input",
            classes=(0, 1) if number == STAGES - 1 else (),
        )
        for number in range(STAGES)
    )
    return Application(
        name="made-up",
        title="Made up",
        input=PIXELS,
        labels=("no", "yes"),
        default_deadline_ms=DEADLINE_MS,
        reference_score=REFERENCE_SCORE,
        variants=(
            Variant(
                name="layer", kind="layer", stages=stages, micro_batch=16, accuracy=0.9, accuracy_images=1000
            ),
        ),
        fragments=fragments,
        chains=chains,
    )


def cluster(app: Application, nodes: int) -> ClusterView:
    """Make a cluster of nodes of three speeds and three links that hold every fragment."""
    random = Random(nodes)
    states = tuple(
        NodeState(
            node=f"n{index}",
            boot="0" * 16,
            online=True,
            silent_ms=0.0,
            score=REFERENCE_SCORE * random.choice((0.25, 0.5, 1.0)),
            memory_budget_bytes=1 << 30,
            loaded=tuple(fragment.sha256 for fragment in app.fragments),
            queue_ms=0.0,
            queue_length=0,
            cpu_ratio=0.0,
            link_megabytes_per_second=random.choice((5.0, 20.0, 100.0)),
            timings=(),
        )
        for index in range(nodes)
    )
    view = ClusterView()
    view.apply(ClusterState(sequence=1, nodes=states), 0.0)
    return view


def active_tasks(app: Application, view: ClusterView) -> list[ActiveJob]:
    """Make tasks that were placed at random."""
    policy = placement_policy("random", seed=1)
    active = []
    for number in range(TASKS):
        job = Job(app, app.variant("layer"), BATCH)
        task = f"benchmark.{number}"
        found = place(policy, PlacementRequest(task, job, 5.0, DEADLINE_MS), view, 0.0)
        if isinstance(found, Infeasible):
            raise TypeError(found.reason)
        view.placed(task, 1, found.stage_work(), 0.0, due_ms=DEADLINE_MS)
        active.append(ActiveJob(task, job, found.nodes, dict.fromkeys(found.nodes, 1.0), DEADLINE_MS))
    return active


def times_ms(action: Callable[[], object], repeats: int) -> str:
    """Format median and 99th percentile of CPU times."""
    times = []
    for _ in range(repeats):
        began = process_time()
        action()
        times.append(1000 * (process_time() - began))
    return f"p50 {np.median(times):7.2f} ms, p99 {np.quantile(times, 0.99):7.2f} ms"


def measure(name: PlacementName, nodes: int, repeats: int) -> None:
    """Measure one policy and one cluster size, and print its lines."""
    app = application()
    view = cluster(app, nodes)
    active = active_tasks(app, view)
    policy = placement_policy(name)
    request = PlacementRequest("benchmark.new", Job(app, app.variant("layer"), BATCH), 5.0, DEADLINE_MS)
    if not isinstance(policy.place(request, view, 0.0), Placement):
        raise TypeError(name)
    one = times_ms(lambda: policy.place(request, view, 0.0), repeats)
    print(f"{nodes:5} nodes, {name:15}: a task of {STAGES} stages {one}", flush=True)
    if isinstance(policy, Rearranging):
        all_of_them = times_ms(lambda: policy.rearrange(active, view, 0.0), repeats)
        print(f"{nodes:5} nodes, {name:15}: {STAGES * TASKS} fragments    {all_of_them}", flush=True)


def measure_groupings(nodes: int, repeats: int) -> None:
    """Measure placements of a shipped network whose stages are chosen when a task is placed."""
    app = ModelStore(SHIPPED_STORE).application("cifar100")
    view, policy = cluster(app, nodes), placement_policy("earliest-finish")
    request = PlacementRequest("benchmark.new", Job(app, app.variant("layer"), BATCH), 5.0, DEADLINE_MS)
    began = process_time()
    policy.place(request, view, 0.0)
    first_ms = 1000 * (process_time() - began)
    moments = count(1)
    searched = times_ms(lambda: policy.place(request, view, next(moments) * USED_FOR_MS), repeats)
    again = times_ms(lambda: policy.place(request, view, repeats * USED_FOR_MS), repeats)
    print(f"{nodes:5} nodes, stages of {app.name}: searched {searched} (the first {first_ms:.1f} ms)")
    print(f"{nodes:5} nodes, stages of {app.name}: known    {again}")
    found = policy.place(request, view, 0.0)
    hint = foreseen_of(found, view) if isinstance(found, Placement) else None
    if hint is not None:
        confirmed = times_ms(lambda: policy.confirm(request, hint, view, 0.0), repeats)
        print(f"{nodes:5} nodes, stages of {app.name}: foreseen {confirmed}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 200, 1000])
    names = get_args(PlacementName)
    parser.add_argument(
        "--policies", nargs="+", choices=names, default=[name for name in names if name != "exact"]
    )
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    for nodes in arguments.nodes:
        for name in arguments.policies:
            measure(cast("PlacementName", name), nodes, arguments.repeats)
        measure_groupings(nodes, arguments.repeats)


if __name__ == "__main__":
    main()
