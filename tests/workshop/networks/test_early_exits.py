"""Heads inside a residual network."""

import pytest
import torch

from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.early_exits import EarlyExits
from splitplace.workshop.networks.resnet_v2 import (
    PreActivationBlock,
    PreActivationBottleneck,
    ResNetV2,
)

IMAGES = torch.randint(0, 256, (3, 1, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def _network(block: type[PreActivationBlock | PreActivationBottleneck]) -> ResNetV2:
    torch.manual_seed(0)
    return ResNetV2(5, widths=(8, 16), blocks=(2, 2), pixels=Pixels((100.0,), (50.0,)), block=block)


@pytest.mark.parametrize("block", [PreActivationBlock, PreActivationBottleneck])
def test_every_exit_answers_as_the_network_up_to_it(
    block: type[PreActivationBlock | PreActivationBottleneck],
) -> None:
    exits = EarlyExits(_network(block), (1, 3)).eval()
    with torch.inference_mode():
        first, second, last = exits.all_logits(IMAGES)
        torch.testing.assert_close(exits.up_to(0)(IMAGES), first)
        torch.testing.assert_close(exits.up_to(1)(IMAGES), second)
        torch.testing.assert_close(exits(IMAGES), last)
    assert first.shape == second.shape == last.shape == (3, 5)
    assert not torch.equal(first, last)


def test_parameters_before_an_exit_have_the_names_of_the_whole_network() -> None:
    exits = EarlyExits(_network(PreActivationBlock), (2,))
    shared = {name for name, _ in exits.up_to(0).named_parameters() if not name.startswith("head.")}
    assert shared
    assert shared < {name for name, _ in exits.network.named_parameters()}


@pytest.mark.parametrize("after", [(0,), (2, 2), (3, 1), (4,)])
def test_exits_stand_in_order_and_before_the_end(after: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected ascending numbers"):
        EarlyExits(_network(PreActivationBlock), after)
