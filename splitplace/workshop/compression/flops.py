"""The work of a network in PyTorch, counted as `workshop.onnx.graph` counts that of an exported one."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


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
