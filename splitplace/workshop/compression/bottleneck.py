"""Learned bottlenecks: a few channels of bytes cross a cut instead of the layer's own floats.

After Shao and Zhang 2019, "BottleNet++: an end-to-end approach for feature compression in device-edge
co-inference systems". Both halves of a bottleneck are part of one network while it is trained. The exported
graph is cut between them, where the bytes are.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from splitplace.errors import SplitPlaceError
from splitplace.workshop.compression.normalisation import recalibrate
from splitplace.workshop.cutting.layer_split import cut, cut_points
from splitplace.workshop.onnx.graph import Graph

LARGEST_BYTE = 255
MIDDLE = 128.0
STEPS = 32.0
"""Byte values per standard deviation of the code: a byte covers four deviations on either side."""


class BottleneckError(SplitPlaceError):
    """The bottleneck does not fit into the network, or the graph has none."""


@dataclass(frozen=True)
class Narrowing:
    """Size of the code that crosses a cut instead of a tensor."""

    channels: int
    """Channels of the code, one byte each."""
    stride: int = 1
    """Divisor of the feature maps' height and width."""


class Bottleneck(nn.Module):
    """Encoder and decoder of one tensor: a linear code for each patch of `stride` x `stride` positions."""

    def __init__(self, channels: int, narrowing: Narrowing) -> None:
        """Draw random weights.

        Args:
            channels: Channels of the feature maps. Their sides must be multiples of the stride.
            narrowing: Size of the code.
        """
        super().__init__()
        patch = channels * narrowing.stride**2
        self.gather = nn.PixelUnshuffle(narrowing.stride)
        self.encoder = nn.Conv2d(patch, narrowing.channels, 1)
        self.decoder = nn.Conv2d(narrowing.channels, patch, 1)
        self.scatter = nn.PixelShuffle(narrowing.stride)

    def encode(self, features: Tensor) -> Tensor:
        """Encode `float32[N, C, H, W]` as `uint8[N, channels, H / stride, W / stride]`."""
        return torch.round(self._code(features)).to(torch.uint8)

    def decode(self, code: Tensor) -> Tensor:
        """Decode `uint8` or `float32[N, channels, H / stride, W / stride]` to `float32[N, C, H, W]`."""
        features: Tensor = self.scatter(self.decoder((code.float() - MIDDLE) / STEPS))
        return features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features as the other side of the cut sees them, `float32[N, C, H, W]`.

        In training, gradients ignore the rounding (straight-through estimator).
        """
        if not self.training:
            return self.decode(self.encode(features))
        code = self._code(features)
        return self.decode(code + (torch.round(code) - code).detach())

    def begin_as_principal_components(self, features: Tensor) -> None:
        """Set the linear code that loses least of the given features, `float32[N, C, H, W]`."""
        patches = self.gather(features).movedim(1, -1).flatten(0, -2).double()
        mean = patches.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov(patches.T))
        kept = self.encoder.out_channels
        deviations = variances[-kept:].clamp(min=1e-12).sqrt()
        encoder = (directions[:, -kept:] / deviations).T
        decoder = directions[:, -kept:] * deviations
        with torch.no_grad():
            self.encoder.weight.copy_(encoder[:, :, None, None])
            self.encoder.bias.copy_(-encoder @ mean)  # type: ignore[union-attr]
            self.decoder.weight.copy_(decoder[:, :, None, None])
            self.decoder.bias.copy_(mean)  # type: ignore[union-attr]

    def _code(self, features: Tensor) -> Tensor:
        """Return the code before rounding, 0 to 255."""
        return torch.clamp(self.encoder(self.gather(features)) * STEPS + MIDDLE, 0, LARGEST_BYTE)


def insert_bottlenecks(
    network: nn.Module, narrowings: Mapping[str, Narrowing], images: NDArray[Any]
) -> nn.Module:
    """Insert a bottleneck after each of the named modules of a network.

    A bottleneck starts as the principal components of its module's output on the images, so the network's
    answers hardly change. A strong narrowing needs fine-tuning: `training.loop.train` with
    `training.semantic.distillation`. The same network and images always give the same result, so fine-tuned
    weights can be loaded into a network that is built again.

    Args:
        network: The trained network. It is not changed.
        narrowings: Size of the code after each module, by module name (`blocks.1`), in the order of the data
            flow. Everything that later modules read must pass through the module's output.
        images: `[N, C, H, W]`, as the network accepts them; a few hundred training images.

    Returns:
        A copy with the bottlenecks, in evaluation mode.

    Raises:
        BottleneckError: A module does not exist or does not return feature maps, or their sides or channels
            do not allow the narrowing.
    """
    batch = torch.from_numpy(images)
    narrowed = copy.deepcopy(network).eval()
    for name, narrowing in narrowings.items():
        features = _features(narrowed, name, batch)
        _check(name, narrowing, features)
        bottleneck = Bottleneck(features.shape[1], narrowing).eval()
        bottleneck.begin_as_principal_components(features)
        part = narrowed.get_submodule(name)
        narrowed.set_submodule(name, nn.Sequential(part, bottleneck))
    recalibrate(narrowed, batch)
    return narrowed


def cut_at_bottlenecks(model: onnx.ModelProto) -> tuple[onnx.ModelProto, ...]:
    """Cut an exported network at its `bottlenecks`. Raises BottleneckError as they do."""
    return cut(model, bottlenecks(model))


def bottlenecks(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the tensors where an exported network's bottlenecks are: nothing but bytes crosses there.

    Raises:
        BottleneckError: The graph has no place where nothing but bytes crosses.
    """
    graph = Graph(model)
    names = [point.tensor for point in cut_points(model)]
    crossing = tuple(name for name in names if graph.element_type(name) == TensorProto.UINT8)
    if not crossing:
        raise BottleneckError("the graph has no place where nothing but bytes crosses")
    return crossing


def _features(network: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return the feature maps that a module computes for the images."""
    try:
        module = network.get_submodule(name)
    except AttributeError as error:
        raise BottleneckError(f"{type(network).__name__} has no part {name!r}") from error
    seen: list[object] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        network(images)
    hook.remove()
    features = seen[0] if len(seen) == 1 else None
    if not isinstance(features, Tensor) or features.dim() != 4:  # noqa: PLR2004 - N, C, H, W
        raise BottleneckError(f"{name} makes no feature maps, or makes them more than once")
    return features


def _check(name: str, narrowing: Narrowing, features: Tensor) -> None:
    _, channels, height, width = features.shape
    if height % narrowing.stride or width % narrowing.stride:
        raise BottleneckError(
            f"{name} makes maps of {height} x {width}, which cannot be divided by {narrowing.stride}"
        )
    if not 1 <= narrowing.channels < channels * narrowing.stride**2:
        raise BottleneckError(
            f"{narrowing.channels} channels are no narrowing of {channels} x {narrowing.stride**2}"
        )
