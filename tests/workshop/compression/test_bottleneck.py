"""Bytes cross between the fragments of a chain, and the answers stay nearly the same."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from splitplace.edge_node.runtime import load_fragment
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.compression.bottleneck import (
    Bottleneck,
    BottleneckError,
    Narrowing,
    cut_at_bottlenecks,
    insert_bottlenecks,
)
from splitplace.workshop.compression.normalisation import recalibrate
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from tests.support.small_networks import EXAMPLE, PIXELS, easy_subset

IMAGES = easy_subset(64).images
WHERE = {"blocks.0": Narrowing(5, stride=2), "blocks.1": Narrowing(12)}


@pytest.fixture(scope="module")
def network() -> ResNetV2:
    torch.manual_seed(0)
    made = ResNetV2(10, widths=(8, 16), blocks=(1, 2), pixels=PIXELS, stem="halving")
    recalibrate(made, torch.from_numpy(IMAGES))
    return made


@pytest.fixture(scope="module")
def narrowed(network: ResNetV2) -> nn.Module:
    return insert_bottlenecks(network, WHERE, IMAGES)


@pytest.fixture(scope="module")
def chain(narrowed: nn.Module) -> tuple[onnx.ModelProto, ...]:
    return cut_at_bottlenecks(export_network(narrowed, EXAMPLE))


def logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        answers: Tensor = network.eval()(images)
    return answers


def test_nodes_run_the_chain_and_only_bytes_cross(
    narrowed: nn.Module, chain: tuple[onnx.ModelProto, ...], tmp_path: Path
) -> None:
    runtimes = []
    for index, model in enumerate(chain):
        (tmp_path / f"{index}.onnx").write_bytes(file_content(model))
        runtimes.append(load_fragment(tmp_path / f"{index}.onnx"))
    first, second = TensorSpec(dtype="uint8", shape=(5, 7, 7)), TensorSpec(dtype="uint8", shape=(12, 7, 7))
    assert [runtime.output for runtime in runtimes[:-1]] == [first, second]
    assert all(before.output == after.input for before, after in pairwise(runtimes))
    images = easy_subset(20, seed=1).images
    tensor = images
    for runtime in runtimes:
        tensor = runtime.run(tensor)
    expected = logits(narrowed, torch.from_numpy(images)).numpy()
    # One step of a byte: rounding halves may fall to the other side in another implementation.
    np.testing.assert_allclose(tensor, expected, atol=0.05 * np.ptp(expected))


def test_code_is_nearly_lossless_where_features_have_as_few_dimensions() -> None:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 3, 6, 6, generator=random)
    features = torch.einsum("ck,nkhw->nchw", torch.randn(10, 3, generator=random), hidden) + 4
    bottleneck = Bottleneck(10, Narrowing(3)).eval()
    bottleneck.begin_as_principal_components(features)
    with torch.inference_mode():
        error = (bottleneck(features) - features).square().mean()
    assert error < 1e-3 * features.var()


def test_what_is_lost_is_the_variance_of_the_components_left_out() -> None:
    features = torch.randn(100, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    features[:, :, 1::2, :] = features[:, :, ::2, :]  # two rows alike: half of a patch says all
    bottleneck = Bottleneck(2, Narrowing(4, stride=2)).eval()
    bottleneck.begin_as_principal_components(features)
    with torch.inference_mode():
        error = (bottleneck(features) - features).square().mean()
    assert error < 0.01


def test_training_and_evaluation_see_the_same_rounded_code() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(6, Narrowing(2))
    features = torch.randn(4, 6, 5, 5)
    with torch.inference_mode():
        torch.testing.assert_close(bottleneck.train()(features), bottleneck.eval()(features))


def test_gradients_pass_the_rounding() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(6, Narrowing(2)).train()
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.02)
    features = torch.einsum("ck,nkhw->nchw", torch.randn(6, 2), torch.randn(16, 2, 5, 5))
    errors = []
    for _ in range(150):
        error = nn.functional.mse_loss(bottleneck(features), features)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0]


def test_a_wide_bottleneck_leaves_the_answers_nearly_as_they_were(network: ResNetV2) -> None:
    wide = insert_bottlenecks(network, {"blocks.0": Narrowing(7)}, IMAGES)
    images = torch.from_numpy(IMAGES)
    expected = logits(network, images)
    assert (logits(wide, images) - expected).abs().mean() < 0.1 * expected.std()


def test_the_original_stays_as_it_is_and_inserting_again_gives_the_same(
    network: ResNetV2, narrowed: nn.Module
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    again = insert_bottlenecks(network, WHERE, IMAGES).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in narrowed.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "narrowing", "problem"),
    [
        ("nowhere", Narrowing(4), "has no part 'nowhere'"),
        ("classifier", Narrowing(4), "makes no feature maps"),
        ("blocks.1", Narrowing(4, stride=2), "7 x 7, which cannot be divided by 2"),
        ("blocks.0", Narrowing(8), "no narrowing"),
        ("blocks.0", Narrowing(0), "no narrowing"),
    ],
)
def test_a_bottleneck_that_does_not_fit_is_refused(
    network: ResNetV2, name: str, narrowing: Narrowing, problem: str
) -> None:
    with pytest.raises(BottleneckError, match=problem):
        insert_bottlenecks(network, {name: narrowing}, IMAGES)


def test_a_graph_without_bottlenecks_is_refused(network: ResNetV2) -> None:
    with pytest.raises(BottleneckError, match="nothing but bytes"):
        cut_at_bottlenecks(export_network(network, EXAMPLE))
