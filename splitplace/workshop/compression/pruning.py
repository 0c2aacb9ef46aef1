"""Structured pruning: whole channels are removed, so that what is left is a smaller network.

Which layers must lose the same channels (around a residual connection, through a normalisation or a depthwise
convolution) is found by tracing the network: Fang et al. 2023, "DepGraph: towards any structural pruning".
"""

import copy
import warnings
from typing import Any

import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from splitplace.errors import SplitPlaceError
from splitplace.workshop.compression.normalisation import recalibrate
from splitplace.workshop.networks.common import CHANNEL_MULTIPLE

MOST_PRUNED = 0.9
"""Greatest share of its channels that a layer loses."""
STEPS = 100
"""The greatest share is approached in so many steps, until the network is small enough."""


class PruningError(SplitPlaceError):
    """A network that cannot be pruned as far as was asked."""


def prune(network: nn.Module, images: NDArray[Any], flops_ratio: float) -> nn.Module:
    """Removes the channels that matter least, wherever they are, until little enough work is left.

    A channel matters as much as the norm of all weights that would go with it, relative to the mean of its
    layer; one threshold holds for all layers that are built alike (Fang et al. 2024, "Isomorphic pruning").
    Afterwards the statistics of the normalisations are taken anew, from the images. The result is not
    fine-tuned, and answers badly before it is: `training.loop.train` with `training.semantic.distillation`.

    The same network and images always give the same result, so the fine-tuned weights of a pruned network fit
    into the original one pruned again.

    Args:
        network: The trained network, images to logits by a last linear layer. It is not changed.
        images: `[N, C, H, W]`, as the network accepts them; some hundred training images.
        flops_ratio: Greatest share of the network's FLOPs that is kept, above 0 and below 1.

    Returns:
        A smaller copy, of the same class and in evaluation mode.

    Raises:
        ValueError: The ratio is not between 0 and 1.
        PruningError: The network has no linear layer, or parameters outside of layers (a vision transformer
            has), or too much is left when every layer has lost its most.
    """
    if not 0 < flops_ratio < 1:
        raise ValueError(f"the share of FLOPs to keep is {flops_ratio}, expected one between 0 and 1")
    batch = torch.from_numpy(images)
    smaller = copy.deepcopy(network).eval()
    pruner = _pruner(smaller, batch[:1])
    whole_flops = flops_per_image(network, batch)
    for _ in range(STEPS):
        pruner.step()
        if flops_per_image(smaller, batch) <= flops_ratio * whole_flops:
            recalibrate(smaller, batch)
            return smaller
    left = flops_per_image(smaller, batch) / whole_flops
    raise PruningError(
        f"{left:.3f} of the FLOPs are left when {MOST_PRUNED} of the channels are gone, not {flops_ratio}"
    )


def flops_per_image(network: nn.Module, images: Tensor) -> int:
    """Floating-point operations of the convolutions and matrix products: two for each multiply-add.

    Args:
        network: It is run once in evaluation mode, and left in the mode it was in.
        images: A batch that it accepts, `[N, C, H, W]` with N >= 1.
    """
    training = network.training
    network.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(images[:1])
    network.train(training)
    return int(counter.get_total_flops())


def _pruner(network: nn.Module, example: Tensor) -> torch_pruning.pruner.BasePruner:
    """What removes channels from the network, a step at a time."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Unwrapped parameters")
        try:
            return torch_pruning.pruner.BasePruner(
                network,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                global_pruning=True,
                isomorphic=True,
                pruning_ratio=MOST_PRUNED,
                max_pruning_ratio=MOST_PRUNED,
                iterative_steps=STEPS,
                ignored_layers=[_classifier(network)],
                round_to=CHANNEL_MULTIPLE,
            )
        except UserWarning as warning:
            raise PruningError(
                f"{type(network).__name__} has parameters outside of layers, whose channels cannot be told"
            ) from warning


def _classifier(network: nn.Module) -> nn.Module:
    """The layer whose outputs are the logits, of which none may be lost."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise PruningError(f"{type(network).__name__} has no linear layer that gives the logits")
    return linear[-1]
