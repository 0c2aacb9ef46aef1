"""Networks in which several tensors cross are cut into four stages and run by four nodes over a broker."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitplace.messages.application import INPUT, Application, Stage, Variant
from splitplace.messages.groupings import grouped
from splitplace.messages.pieces import NamedChain, NamedTensor
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.description import described, with_costs
from splitplace.workshop.pieces.chain import balanced_cuts, measured, timed_chain, write_files
from splitplace.workshop.pieces.cut import cut_numbers
from tests.edge_node.world import routes, world
from tests.support.branching_networks import SIDE, detector, unet
from tests.support.chains import contents
from tests.support.small_pieces import answers
from tests.support.waiting import until

STAGES = 4
MICRO_BATCH = 2
MOST_OF_THE_WEIGHTS = 0.4
NETWORKS = pytest.mark.parametrize("build", [unet, detector])


def ever_less(_: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock: the later layers of a network take less time, and hold more weights."""
    return [1.0 / (number + 1) for number in range(len(ends) + 1)]


def build_application(model: onnx.ModelProto, root: Path) -> Application:
    """Write a network in four stages into a store."""
    network = measured(model, ever_less)
    cuts = balanced_cuts(network, STAGES)
    timed = timed_chain(network, cuts)
    folder = root / "pieces"
    folder.mkdir(parents=True)
    write_files(folder, timed.cut)
    chain = with_costs(folder, "net", timed)
    ends = [0, *cut_numbers(chain.chain, cuts), len(chain.costs)]
    describe = partial(described, folder, chain, micro_batch=MICRO_BATCH)
    fragments = tuple(describe(first, end) for first, end in pairwise(ends))
    names = [INPUT, *(f"stage-{number}" for number in range(STAGES))]
    stages = tuple(
        Stage(name=name, fragment=fragment.sha256, source=source)
        for name, source, fragment in zip(names[1:], names, fragments, strict=False)
    )
    (output,) = chain.chain.bundles[-1]
    application = Application(
        name="tiny",
        title="Several tensors cross",
        input=chain.chain.bundles[0][0].spec,
        outputs=(output,),
        labels=(),
        default_deadline_ms=1000.0,
        reference_score=50.0,
        variants=(
            Variant(
                name="layer",
                kind="layer",
                stages=stages,
                micro_batch=MICRO_BATCH,
                accuracy=0.0,
                accuracy_images=0,
                most_stages=8,
            ),
        ),
        fragments=fragments,
        chains=(chain,),
    )
    ModelStore(root).save(application, contents(timed.cut))
    return application


def images(count: int = MICRO_BATCH) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def weights_of(chain: NamedChain, first: int, end: int) -> int:
    return sum(cost.weight_bytes for cost in chain.costs[first:end])


@NETWORKS
def test_four_stages_none_with_more_than_two_fifths_of_the_weights(
    build: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    application = build_application(build(), tmp_path / "models")
    (chain,) = application.chains
    runs = [weights_of(chain, run.first, run.end) for run in application.fragments]
    assert len(runs) == STAGES
    assert max(runs) <= MOST_OF_THE_WEIGHTS * weights_of(chain, 0, len(chain.costs))
    assert max(len(run.outputs) for run in application.fragments[:-1]) > 1, "several tensors cross"


@NETWORKS
async def test_the_stages_on_four_nodes_answer_as_the_network_does(
    build: Callable[[], onnx.ModelProto], broker_url: str, tmp_path: Path
) -> None:
    model = build()
    application = build_application(model, tmp_path / "models")
    nodes = [f"n{number}" for number in range(STAGES)]
    async with world(broker_url, tmp_path, *nodes, application=application) as w:
        (route,) = routes(application.variants[0], nodes)
        await w.outside.send(route, images(), compress=True)
        await until(lambda: w.outside.outputs or w.outside.failures, 60)
        assert not w.outside.failures
        np.testing.assert_allclose(
            w.outside.output(f"stage-{STAGES - 1}"), answers(model, images()), rtol=1e-4, atol=1e-5
        )


async def test_stages_that_were_grouped_for_a_task_hand_bundles_on(broker_url: str, tmp_path: Path) -> None:
    """Each piece is a stage of its own, on two nodes by turns: tensors are handed on over many hops."""
    model = unet()
    application = build_application(model, tmp_path / "models")
    (chain,) = application.chains
    count = min(8, len(chain.costs))
    variant = application.variants[0]
    anew = grouped(application, variant, range(1, count))
    async with world(broker_url, tmp_path, "n0", "n1", application=application) as w:
        nodes = [f"n{number % 2}" for number in range(count)]
        (route,) = routes(anew.variant, nodes, anew.runs)
        await w.outside.send(route, images())
        await until(lambda: w.outside.outputs or w.outside.failures, 60)
        assert not w.outside.failures
        last = anew.variant.stages[-1].name
        np.testing.assert_allclose(w.outside.output(last), answers(model, images()), rtol=1e-4, atol=1e-5)


def test_names_that_are_too_long_for_a_frame_get_short_ones(tmp_path: Path) -> None:
    model = unet()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}/{'deep/' * 30}" if name.endswith(".relu") else name for name in names]
    application = build_application(model, tmp_path / "models")
    crossing: list[NamedTensor] = [
        tensor for bundle in application.chains[0].chain.bundles if len(bundle) > 1 for tensor in bundle
    ]
    assert crossing
    assert max(len(tensor.name) for tensor in crossing) <= 64
