"""Takes somebody's torch network: a function of theirs that builds it, and a file with its weights."""

import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.user_networks.from_onnx import UserNetworkError
from splitplace.workshop.user_networks.preprocessing import Preprocessing


class _ReadingBytes(nn.Module):
    """Somebody's network behind the step that makes its input from bytes."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.pixels = Pixels(preprocessing.mean_bytes, preprocessing.deviation_bytes)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.pixels(images))
        return logits


def built(builder: str) -> nn.Module:
    """Calls `file.py:function` or `package.module:function`, which is the user's own code.

    Raises:
        UserNetworkError: There is no such function, or it gives no torch module.
    """
    place, _, name = builder.rpartition(":")
    if not place:
        raise UserNetworkError(
            f"{builder!r} is neither FILE.py:FUNCTION nor PACKAGE.MODULE:FUNCTION, nor an ONNX file"
        )
    network = _function(place, name)()
    if not isinstance(network, nn.Module):
        raise UserNetworkError(f"{builder} gives {type(network).__name__}, expected a torch module")
    return network


def load_weights(network: nn.Module, path: Path) -> None:
    """Sets the weights from a `.safetensors` file, or from a file of torch that holds nothing but tensors.

    Raises:
        UserNetworkError: It cannot be read, or does not fit the network.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location="cpu")
        network.load_state_dict(state)
    except Exception as error:  # a file of something else ends in almost any of Python's errors
        raise UserNetworkError(f"{path}: are not the network's weights: {error}") from error


def exported(
    network: nn.Module, shape: tuple[int, int, int], preprocessing: Preprocessing
) -> onnx.ModelProto:
    """The network as ONNX, reading bytes `[N, C, H, W]`.

    Raises:
        UserNetworkError: It does not run on such pictures, or cannot be exported.
    """
    example = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    reading = _ReadingBytes(network, preprocessing).eval()
    try:
        with torch.inference_mode():
            logits = reading(torch.from_numpy(example))
    except RuntimeError as error:
        raise UserNetworkError(f"the network does not run on pictures {list(shape)}: {error}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:  # noqa: PLR2004 - images and classes
        raise UserNetworkError(
            f"the network gives {getattr(logits, 'shape', type(logits))}, expected logits [2, classes]"
        )
    try:
        return export_network(reading, example)
    except ValueError as error:
        raise UserNetworkError(f"the network cannot be exported: {error}") from error
    except Exception as error:  # torch.onnx raises errors of many kinds
        raise UserNetworkError(
            f"torch cannot export the network; an ONNX file made otherwise can be added instead: {error}"
        ) from error


def _function(place: str, name: str) -> Callable[[], object]:
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else import_module(place)
    except (ImportError, OSError) as error:
        raise UserNetworkError(f"{place} cannot be imported: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserNetworkError(f"{place} has no function {name}")
    found: Callable[[], object] = function
    return found


def _module_of_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # so that it finds what lies beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module
