"""Branches that begin as the whole network."""

import pytest
import torch

from splitplace.workshop.compression.pruning import flops_per_image
from splitplace.workshop.compression.specialise import MARGIN, headed, specialised_branches
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from tests.support.small_networks import PIXELS, random_images

GROUPS = ((0, 3, 4), (1, 2))


@pytest.fixture(scope="module")
def whole() -> ResNetV2:
    torch.manual_seed(0)
    return ResNetV2(5, widths=(24, 48), blocks=(1, 1), pixels=PIXELS, stem="halving").eval()


def test_a_head_for_a_group_gives_the_logits_of_its_classes(whole: ResNetV2) -> None:
    images = torch.from_numpy(random_images(4))
    with torch.no_grad():
        torch.testing.assert_close(headed(whole, (0, 3, 4))(images), whole(images)[:, [0, 3, 4]])


def test_each_branch_costs_less_than_its_share_of_the_whole(whole: ResNetV2) -> None:
    images = random_images(16)
    branches = specialised_branches(whole, GROUPS, images)
    batch = torch.from_numpy(images)
    for branch in branches.branches:
        share = flops_per_image(branch, batch) / flops_per_image(whole, batch)
        assert share <= MARGIN / len(GROUPS)
    assert branches(batch).shape == (16, 5)


def test_the_same_network_gives_the_same_branches(whole: ResNetV2) -> None:
    images = random_images(16)
    one, other = (specialised_branches(whole, GROUPS, images).state_dict() for _ in range(2))
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)
