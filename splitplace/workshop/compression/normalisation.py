"""Recompute the statistics of batch normalisations after the network before them has changed."""

import torch
from torch import Tensor, nn

BATCH = 128


def recalibrate(network: nn.Module, images: Tensor) -> None:
    """Recompute mean and variance of all batch normalisations as averages over batches of the images.

    A few images restore most of the accuracy that is lost when channels are removed or altered.

    Args:
        network: The network to change. It is left in evaluation mode.
        images: `[N, C, H, W]`, N >= 2.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # average over all batches with equal weight
    network.train()
    with torch.no_grad():
        for batch in torch.split(images, BATCH):
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
