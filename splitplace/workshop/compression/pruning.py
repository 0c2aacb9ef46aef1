"""Structured pruning: remove whole channels, which leaves a smaller ordinary network.

Tracing the network finds the layers that must lose the same channels (around a residual connection, through a
normalisation or a depthwise convolution): Fang et al. 2023, "DepGraph: towards any structural pruning".
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

MAX_PRUNED_SHARE = 0.9
"""Greatest share of its channels that a layer loses."""
STEPS = 100
"""Number of steps from no pruning to the greatest share; pruning stops once the network is small enough."""


class PruningError(SplitPlaceError):
    """The network cannot be pruned as far as requested."""


def prune(network: nn.Module, images: NDArray[Any], flops_ratio: float) -> nn.Module:
    """Remove the least important channels of all layers until the network's work is small enough.

    The importance of a channel is the norm of all weights that would be removed with it, relative to the mean
    of its layer. Layers with the same structure share one threshold (Fang et al. 2024, "Isomorphic pruning").
    Afterwards the statistics of the normalisations are recomputed from the images. The result needs
    fine-tuning before it is accurate: `training.loop.train` with `training.semantic.distillation`.

    The same network and images always give the same result, so the fine-tuned weights of a pruned network can
    be loaded into the original network pruned again.

    Args:
        network: The trained network, from images to logits, with a final linear layer. It is not changed.
        images: `[N, C, H, W]`, as the network accepts them; a few hundred training images.
        flops_ratio: Greatest share of the network's FLOPs to keep, above 0 and below 1.

    Returns:
        A smaller copy of the same class, in evaluation mode.

    Raises:
        ValueError: The ratio is not between 0 and 1.
        PruningError: The network has no linear layer, has parameters outside of layers (as a vision
            transformer has), or remains too large when every layer has lost its greatest share.
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
        f"{left:.3f} of the FLOPs remain when {MAX_PRUNED_SHARE} of the channels are removed, "
        f"more than the {flops_ratio} asked for"
    )


def flops_per_image(network: nn.Module, images: Tensor) -> int:
    """Count the floating-point operations of convolutions and matrix products: two for each multiply-add.

    `onnx.graph.Graph.flops_per_image` counts the same for an exported network.

    Args:
        network: Run once in evaluation mode, and left in the mode it was in.
        images: A batch that the network accepts, `[N, C, H, W]` with N >= 1.
    """
    training = network.training
    network.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(images[:1])
    network.train(training)
    return int(counter.get_total_flops())


def _pruner(network: nn.Module, example: Tensor) -> torch_pruning.pruner.BasePruner:
    """Return the pruner that removes channels from the network step by step."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Unwrapped parameters")
        try:
            return torch_pruning.pruner.BasePruner(
                network,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                global_pruning=True,
                isomorphic=True,
                pruning_ratio=MAX_PRUNED_SHARE,
                max_pruning_ratio=MAX_PRUNED_SHARE,
                iterative_steps=STEPS,
                ignored_layers=[_classifier(network)],
                round_to=CHANNEL_MULTIPLE,
            )
        except UserWarning as warning:
            raise PruningError(
                f"{type(network).__name__} has parameters outside of layers, whose channels are unknown"
            ) from warning


def _classifier(network: nn.Module) -> nn.Module:
    """Return the layer whose outputs are the logits; none of them may be removed."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise PruningError(f"{type(network).__name__} has no linear layer that computes the logits")
    return linear[-1]
