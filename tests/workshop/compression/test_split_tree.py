"""A residual network that is cut into a trunk and branches."""

import pytest
import torch

from splitplace.workshop.compression.split_tree import CLASSES, SplitNet, Tree
from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.resnet_v2 import ResNetV2

IMAGES = torch.randint(0, 256, (3, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def splitting(groups: int = 2, trunk: int = 1) -> SplitNet:
    torch.manual_seed(0)
    network = ResNetV2(6, widths=(8, 16, 24), blocks=(1, 2, 1), pixels=Pixels((90.0,), (60.0,)))
    return SplitNet(network.eval(), groups, trunk).eval()


def test_branches_share_the_trunk_and_own_all_classes_once() -> None:
    tree = splitting().split().eval()
    assert sorted(index for group in tree.groups for index in group) == list(range(6))
    first, second = tree.branches
    assert isinstance(first, ResNetV2)
    assert isinstance(second, ResNetV2)
    assert first.stem is second.stem
    assert first.blocks[0] is second.blocks[0]
    assert first.blocks[1] is not second.blocks[1]


def test_the_tree_answers_as_its_branches_do_apart() -> None:
    tree = splitting().split().eval()
    with torch.inference_mode():
        together = tree(IMAGES)
        for group, branch in zip(tree.groups, tree.branches, strict=True):
            torch.testing.assert_close(together[:, list(group)], branch(IMAGES))


def test_a_network_without_weights_between_groups_is_split_without_loss() -> None:
    whole = splitting()
    owners = {
        axis: whole.assignments.hard(axis, 1 if axis == CLASSES else 8) for axis in whole.assignments.raw
    }
    for weight, outputs, inputs in whole._grouped():
        apart = torch.from_numpy(owners[outputs][:, None] != owners[inputs][None, :])
        with torch.no_grad():
            weight[apart] = 0
    with torch.inference_mode():
        torch.testing.assert_close(whole.split().eval()(IMAGES), whole(IMAGES), rtol=1e-4, atol=1e-4)


def test_the_penalty_reaches_weights_and_assignments() -> None:
    whole = splitting()
    whole.penalty().backward()  # type: ignore[no-untyped-call]
    assert whole.network.classifier.weight.grad is not None
    assert all(parameter.grad is not None for parameter in whole.assignments.parameters())


@pytest.mark.parametrize("trunk", [0, 2, 4])
def test_a_trunk_ends_where_the_channels_change(trunk: int) -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        splitting(trunk=trunk)


def test_the_tree_is_smaller_than_the_network() -> None:
    whole = splitting()
    tree = whole.split()
    assert isinstance(tree, Tree)
    weights = {id(weight): weight.numel() for weight in tree.parameters()}
    assert sum(weights.values()) < sum(weight.numel() for weight in whole.network.parameters())
