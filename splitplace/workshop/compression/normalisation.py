"""Statistics of normalisations, taken anew when what goes into them has changed."""

import torch
from torch import Tensor, nn

BATCH = 128


def recalibrate(network: nn.Module, images: Tensor) -> None:
    """Takes the means and variances of all normalisations anew, as averages over batches of the images.

    Few images give back most of the accuracy that is lost where channels are missing or altered.

    Args:
        network: It is left in evaluation mode.
        images: `[N, C, H, W]`, N >= 2.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # every batch counts the same
    network.train()
    with torch.no_grad():
        for batch in torch.split(images, BATCH):
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
