"""Channels are removed, and what is left is the same network, smaller."""

import numpy as np
import pytest
import torch
from torch import nn

from splitplace.workshop.compression.normalisation import recalibrate
from splitplace.workshop.compression.pruning import PruningError, flops_per_image, prune
from splitplace.workshop.networks import catalogue
from splitplace.workshop.networks.resnet_v2 import PreActivationBlock, PreActivationBottleneck, ResNetV2
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from tests.support.small_networks import EXAMPLE, PIXELS, random_images

IMAGES = random_images(64)
BLOCKS = (PreActivationBlock, PreActivationBottleneck)


def network(block: type[PreActivationBlock | PreActivationBottleneck] = PreActivationBlock) -> ResNetV2:
    torch.manual_seed(0)
    made = ResNetV2(7, widths=(32, 64), blocks=(2, 1), pixels=PIXELS, stem="halving", block=block)
    recalibrate(made, torch.from_numpy(IMAGES))
    return made


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("ratio", [0.6, 0.3])
def test_work_falls_to_the_share_that_was_asked_for_and_not_far_below(
    block: type[PreActivationBlock | PreActivationBottleneck], ratio: float
) -> None:
    whole = network(block)
    images = torch.from_numpy(IMAGES)
    pruned = prune(whole, IMAGES, ratio)
    share = flops_per_image(pruned, images) / flops_per_image(whole, images)
    assert ratio / 2 < share <= ratio
    assert pruned(images).shape == (len(IMAGES), 7)


def test_exported_file_holds_as_many_flops_as_were_counted_and_is_smaller() -> None:
    whole = network()
    pruned = prune(whole, IMAGES, 0.4)
    models = [export_network(each, EXAMPLE) for each in (whole, pruned)]
    counted = [flops_per_image(each, torch.from_numpy(IMAGES)) for each in (whole, pruned)]
    assert [Graph(model).flops_per_image for model in models] == counted
    assert len(file_content(models[1])) < 0.6 * len(file_content(models[0]))


def test_layers_around_a_residual_connection_lose_the_same_channels() -> None:
    pruned = prune(network(), IMAGES, 0.4)
    assert isinstance(pruned, ResNetV2)
    stem, *blocks = (pruned.stem, *pruned.blocks)
    assert isinstance(stem, nn.Conv2d)
    carried = stem.out_channels
    for block in blocks:
        assert isinstance(block, PreActivationBlock)
        if block.shortcut is None:
            assert block.conv2.out_channels == carried
        else:
            assert block.conv2.out_channels == block.shortcut.out_channels
        carried = block.conv2.out_channels
        assert carried % 8 == 0
        assert block.conv1.out_channels % 8 == 0


def test_channels_that_carry_nothing_are_the_ones_removed() -> None:
    whole = network()
    block = whole.blocks[0]
    assert isinstance(block, PreActivationBlock)
    dead = np.arange(0, 32, 2)
    with torch.no_grad():
        block.conv1.weight[dead] = 0
        block.conv2.weight[:, dead] = 0
        block.norm2.weight[dead] = 0
        block.norm2.bias[dead] = 0
    pruned = prune(whole, IMAGES, 0.8)
    assert isinstance(pruned, ResNetV2)
    smaller = pruned.blocks[0]
    assert isinstance(smaller, PreActivationBlock)
    assert smaller.conv1.out_channels <= 16
    assert all(weight.abs().sum() > 0 for weight in smaller.conv1.weight)


def test_the_original_stays_as_it_is_and_pruning_it_again_gives_the_same() -> None:
    whole = network()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    first, second = (prune(whole, IMAGES, 0.5).state_dict() for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_recalibrated_statistics_are_those_of_the_images() -> None:
    norm = nn.BatchNorm2d(3)
    images = torch.randn(256, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 5 + 2
    recalibrate(nn.Sequential(norm), images)
    torch.testing.assert_close(norm.running_mean, images.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, images.var(dim=(0, 2, 3)), atol=0.5, rtol=0.02)
    assert norm.momentum == 0.1
    assert not norm.training


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5])
def test_a_share_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="expected one between 0 and 1"):
        prune(network(), IMAGES, ratio)


def test_a_share_that_cannot_be_reached_is_refused_with_what_can_be() -> None:
    with pytest.raises(PruningError, match=r"of the FLOPs remain"):
        prune(network(), IMAGES, 0.001)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50_v2"])
def test_networks_with_depthwise_convolutions_and_with_bottlenecks_can_be_pruned(name: str) -> None:
    whole = catalogue.network(name, 10, side=32, pixels=PIXELS, width=0.25)
    images = np.zeros((4, 1, 32, 32), np.uint8)
    pruned = prune(whole, images, 0.7)
    share = flops_per_image(pruned, torch.from_numpy(images)) / flops_per_image(
        whole, torch.from_numpy(images)
    )
    assert 0.35 < share <= 0.7


def test_a_network_with_parameters_outside_of_layers_is_refused() -> None:
    whole = catalogue.network("vision_transformer", 10, side=28, pixels=PIXELS)
    with pytest.raises(PruningError, match="outside of layers"):
        prune(whole, IMAGES, 0.5)


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(PruningError, match="no linear layer"):
        prune(nn.Sequential(nn.Conv2d(1, 8, 3)), IMAGES.astype(np.float32), 0.5)
