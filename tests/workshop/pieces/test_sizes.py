"""What compression leaves of tensors is measured, and written into the manifest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from splitplace.edge_node.runtime import load_stage
from splitplace.messages.frames import encode_tensor
from splitplace.messages.groupings import derived_fragment
from splitplace.messages.pieces import PieceRun
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.packing.packer import Heading, Packer
from splitplace.workshop.packing.ratios import with_output_ratios
from splitplace.workshop.pieces.chain import measured, timed_chain, write_files
from splitplace.workshop.pieces.sizes import sent_shares
from tests.support.small_networks import exported_small_network, random_images
from tests.support.small_pieces import model_of, noise, weight


def alike(_: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock."""
    return [0.5] * (len(ends) + 1)


def test_half_of_a_tensor_after_a_relu_is_zero_and_the_noise_before_it_is_not() -> None:
    shape = list(noise(1).shape[1:])
    nodes = [
        helper.make_node("Mul", ["images", "scale"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["positive"]),
        helper.make_node("Neg", ["positive"], ["logits"]),
    ]
    model = model_of(nodes, [weight("scale", np.array(1.5))], shape, shape)
    shares = sent_shares(model, ["scaled", "positive"])
    assert 0.4 < shares["positive"] < 0.75
    assert shares["scaled"] > 0.9


def test_of_a_network_that_does_not_run_on_one_input_nothing_is_known() -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["folded"]),
        helper.make_node("Neg", ["folded"], ["logits"]),
    ]
    size = list(noise(1).shape[1:])
    model = model_of(nodes, [numpy_helper.from_array(np.array([7, 13]), "shape")], size, [13])
    assert sent_shares(model, ["folded"]) == {}


def test_the_shares_of_places_and_pieces_are_those_of_real_outputs(tmp_path: Path) -> None:
    network = measured(exported_small_network(), alike)
    timed = timed_chain(network, [place.tensors for place in network.places])
    write_files(tmp_path, timed.cut)
    assert min(timed.output_ratios) < 0.8
    for number, ratio in enumerate(timed.output_ratios[:-1], start=1):
        stage = load_stage(timed.cut.chain.stage(0, number), tmp_path)
        outputs = list(stage.run_bundle({stage.inputs[0].name: random_images(4)}).values())
        encoded = sum(len(encode_tensor(output, compress=True)[1]) for output in outputs)
        assert ratio == pytest.approx(encoded / sum(output.nbytes for output in outputs), abs=0.15)


def test_a_manifest_has_the_share_of_every_stage_also_of_those_that_are_grouped_anew(tmp_path: Path) -> None:
    spec = TensorSpec(dtype="uint8", shape=(1, 28, 28))
    packer = Packer(Heading("small", "Small", tuple("0123456789"), spec), tmp_path, 4)
    network = measured(exported_small_network(), alike)
    cut = network.places[0].tensors
    packer.add_measured("whole", network, [cut])
    packer.add_single("whole", "whole")
    packer.add_chain("layer", "whole", [cut], 4)
    application = packer.draft()
    costs = application.chain("whole").costs
    assert costs[0].output_ratio < 1.0
    assert costs[-1].output_ratio == 1.0, "answers are small"
    for end in range(1, len(costs)):
        run = PieceRun(chain="whole", first=0, end=end)
        assert derived_fragment(application, run).output_ratio == costs[end - 1].output_ratio


def test_ratios_of_a_stored_application_are_those_of_its_network(tmp_path: Path) -> None:
    spec = TensorSpec(dtype="uint8", shape=(1, 28, 28))
    packer = Packer(Heading("small", "Small", tuple("0123456789"), spec), tmp_path, 4)
    network = measured(exported_small_network(), alike)
    cut = network.places[0].tensors
    packer.add_measured("whole", network, [cut])
    packer.add_chain("layer", "whole", [cut], 4)
    made = packer.draft()
    (chain,) = made.chains
    unmeasured = chain.model_copy(
        update={"costs": tuple(cost.model_copy(update={"output_ratio": 1.0}) for cost in chain.costs)}
    )
    fragments = tuple(each.model_copy(update={"output_ratio": 1.0}) for each in made.fragments)
    older = made.model_copy(update={"chains": (unmeasured,), "fragments": fragments})
    assert with_output_ratios(older, tmp_path) == made
