"""What a manifest says of chains and fragments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitplace.edge_node.runtime import load_stage
from splitplace.messages.application import Application
from splitplace.messages.pieces import NamedChain
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.cutting.profile import Timing
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.packing.description import described, with_costs, with_times
from splitplace.workshop.packing.packer import Heading, Packer
from splitplace.workshop.pieces.chain import measured, timed_chain, write_files
from splitplace.workshop.pieces.loaded import joined_graph, joined_model
from tests.support.small_networks import exported_small_network, random_images
from tests.support.small_pieces import answers

HEADING = Heading("small", "Small", tuple("0123456789"), TensorSpec(dtype="uint8", shape=(1, 28, 28)))


def alike(_: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock."""
    return [0.5] * (len(ends) + 1)


@pytest.fixture
def whole(tmp_path: Path) -> NamedChain:
    timed = timed_chain(measured(exported_small_network(), alike))
    write_files(tmp_path, timed.cut)
    return with_costs(tmp_path, "whole", timed)


def test_a_description_fits_the_pieces_it_comes_with(whole: NamedChain, tmp_path: Path) -> None:
    model = exported_small_network()
    fragment = described(tmp_path, whole, micro_batch=4)
    stage = whole.chain.stage(0, len(whole.chain.pieces))
    assert (fragment.sha256, fragment.chain, fragment.first, fragment.end) == (
        stage.sha256,
        "whole",
        0,
        len(whole.costs),
    )
    assert fragment.file_bytes == sum((tmp_path / file.sha256).stat().st_size for file in stage.files)
    runtime = load_stage(stage, tmp_path)
    assert (fragment.input, fragment.output) == (runtime.input, runtime.output)
    graph = Graph(model)
    assert fragment.weight_bytes == pytest.approx(graph.weight_bytes, rel=0.01), "a small one stands twice"
    assert fragment.peak_memory_bytes == fragment.weight_bytes + 4 * graph.peak_activation_bytes_per_image
    assert fragment.flops_per_image == graph.flops_per_image > 0


def test_costs_of_pieces_add_up_to_those_of_the_network(whole: NamedChain) -> None:
    assert len(whole.costs) > 2
    graph = Graph(exported_small_network())
    assert sum(cost.weight_bytes for cost in whole.costs) == pytest.approx(graph.weight_bytes, rel=0.01)
    assert sum(cost.flops_per_image for cost in whole.costs) == graph.flops_per_image
    assert (
        max(cost.activation_bytes_per_image for cost in whole.costs) == graph.peak_activation_bytes_per_image
    )


def test_a_stage_is_a_model_again_with_and_without_its_weights(whole: NamedChain, tmp_path: Path) -> None:
    stage = whole.chain.stage(0, len(whole.chain.pieces))
    images = random_images(3)
    model, bare = joined_model(tmp_path, stage), joined_graph(tmp_path, stage)
    assert np.array_equal(answers(model, images), load_stage(stage, tmp_path).run(images))
    assert Graph(model).weight_bytes == Graph(bare).weight_bytes
    assert bare.ByteSize() < 0.5 * model.ByteSize()


def packed(folder: Path, storage: str = "float32") -> Packer:
    packer = Packer(HEADING, folder, 4, storage)  # type: ignore[arg-type]
    network = measured(exported_small_network(), alike)
    cut = network.places[len(network.places) // 2].tensors
    packer.add_measured("whole", network, [cut])
    packer.add_single("whole", "whole")
    packer.add_chain("layer", "whole", [cut])
    return packer


def test_whole_and_layer_are_groupings_of_the_same_pieces(tmp_path: Path) -> None:
    application = packed(tmp_path).draft()
    whole, first, second = application.fragments
    assert (whole.first, first.first, first.end, whole.end) == (0, 0, second.first, second.end)
    assert len(application.chains) == 1
    assert {path.name for path in tmp_path.iterdir()} == {file.sha256 for file in application.files}


def test_new_times_of_fragments_scale_those_of_their_pieces(tmp_path: Path) -> None:
    application = packed(tmp_path).draft()
    timings = [Timing(0.1, image_ms) for image_ms in (8.0, 2.0, 6.0)]
    timed: Application = with_times(application, timings, 50.0)
    (before,), (after,) = application.chains, timed.chains
    assert sum(cost.milliseconds_per_image for cost in after.costs) == pytest.approx(8.0, rel=1e-3)
    ratios = {
        round(b.milliseconds_per_image / a.milliseconds_per_image, 2)
        for a, b in zip(before.costs, after.costs, strict=True)
    }
    assert len(ratios) == 1
