"""Joined pieces equal the network in one file, for every kind of network that SplitPlace stores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import Limits, Preparer
from splitplace.edge_node.stage.session import prepared_session
from splitplace.messages.application import Fragment
from splitplace.messages.limits import MAX_PIECES
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.compression.quantization import quantize
from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.inception_v3 import InceptionV3
from splitplace.workshop.networks.vision_transformer import VisionTransformer
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.pieces.chain import chain_of, is_equal, run_stages, write_files
from splitplace.workshop.pieces.cut import cut_into_pieces
from splitplace.workshop.pieces.loaded import stage_model
from splitplace.workshop.pieces.places import piece_places
from tests.support.small_networks import exported_small_network, random_images
from tests.support.small_pieces import answers

STORE = ModelStore(SHIPPED_STORE)
FRAGMENTS = {
    f"{application.name} {fragment.sha256[:8]}": (application, fragment)
    for application in STORE.applications()
    for fragment in application.fragments
}


def images_for(fragment: Fragment, count: int = 3) -> NDArray[Any]:
    random = np.random.default_rng(2)
    shape = (count, *fragment.input.shape)
    if fragment.input.dtype == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.standard_normal(shape).astype(fragment.input.dtype)


def check_all_pieces(model: onnx.ModelProto, images: NDArray[Any], folder: Path) -> int:
    """Cut a network into as many pieces as may be; compare them and the prepared stage with one file."""
    places = [place.tensors for place in piece_places(model)]
    cut = cut_into_pieces(model, places[:: -(-len(places) // (MAX_PIECES - 1))])
    write_files(folder / "pieces", cut)
    expected = answers(model, images)
    assert is_equal(folder / "pieces", cut, images, expected)
    stage = cut.chain.stage(0, len(cut.chain.pieces))
    preparer = Preparer(folder / "pieces", PreparedForms(folder / "forms", 1 << 30), max_tensor_bytes=1 << 30)
    session = prepared_session(stage, preparer.prepare(stage, [1], Limits(1 << 30)).model)
    found = session.run({stage.inputs[0].name: images})[stage.outputs[0].name]
    assert np.array_equal(found, expected)
    return len(cut.chain.pieces)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_shipped_fragment(tmp_path: Path, name: str) -> None:
    application, fragment = FRAGMENTS[name]
    model = stage_model(STORE, application, fragment)
    check_all_pieces(model, images_for(fragment), tmp_path)


PIXELS = Pixels((100.0,) * 3, (50.0,) * 3)


@pytest.mark.parametrize(
    ("side", "build"),
    [
        (32, lambda: VisionTransformer(10, side=32, depth=3, pixels=PIXELS)),
        (75, lambda: InceptionV3(10, side=75, width=0.25, pixels=PIXELS)),
    ],
    ids=["attention", "branches"],
)
def test_networks_of_other_families(tmp_path: Path, side: int, build: Callable[[], torch.nn.Module]) -> None:
    """Residual networks are in the shipped store."""
    torch.manual_seed(0)
    net = build()
    example = np.random.default_rng(0).integers(0, 256, (3, 3, side, side), dtype=np.uint8)
    assert check_all_pieces(export_network(net, example), example, tmp_path) >= 8


def test_a_network_in_eight_bits(tmp_path: Path) -> None:
    model = quantize(exported_small_network(), random_images(32))
    assert check_all_pieces(model, random_images(3), tmp_path) > 1


def test_what_torch_writes_by_default_with_its_weights_in_another_file(tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    )
    example = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    onnx.save_model(
        export_network(net, example.astype(np.float32)),
        tmp_path / "network.onnx",
        save_as_external_data=True,
        location="network.onnx.data",
        size_threshold=0,
    )
    check_all_pieces(onnx.load(tmp_path / "network.onnx"), example.astype(np.float32), tmp_path)


def test_a_chosen_chain_of_a_shipped_network_in_its_groupings(tmp_path: Path) -> None:
    application = STORE.application("cifar100")
    fragment = application.fragment(application.variant("whole").stages[0].fragment)
    model = stage_model(STORE, application, fragment)
    cut = chain_of(model)
    write_files(tmp_path, cut)
    images = images_for(fragment)
    expected = answers(model, images)
    count = len(cut.chain.pieces)
    assert 4 <= count <= 24
    for cuts in ((), (count // 2,), (1, count - 1), tuple(range(1, count))):
        assert np.allclose(run_stages(tmp_path, cut, cuts, images), expected, atol=1e-4)
