"""The process that runs a user's code: builds their torch network and exports it as ONNX.

    python -P -m splitplace.workshop.user_networks.torch_child FOLDER

`child` says what is in the folder.
"""

import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import splitplace
from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.user_networks.child import answer
from splitplace.workshop.user_networks.from_torch import REPORT, REQUEST, TorchReport, TorchRequest
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError

_MOST_FRAMES = 6
_NOT_THEIRS = tuple(f"{Path(str(package.__file__)).parent}{os.sep}" for package in (splitplace, torch))
_IMPORT_MACHINERY = "<frozen "


class _ReadingBytes(nn.Module):
    """A user's network behind the step that makes its input from bytes."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.pixels = Pixels(preprocessing.mean_bytes, preprocessing.deviation_bytes)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.pixels(images))
        return logits


def export(request: TorchRequest) -> tuple[onnx.ModelProto, TorchReport]:
    """Build the network and export it.

    Raises:
        UserNetworkError: The user's code failed (the text has its traceback), or gives something else.
    """
    _make_way(request.place)
    with _told(f"{request.place} cannot be imported; what it imports must be installed, or lie beside it"):
        module = (
            _module_of_file(Path(request.place))
            if request.place.endswith(".py")
            else import_module(request.place)
        )
    build = getattr(module, request.function, None)
    if not callable(build):
        raise UserNetworkError(f"{request.place} has no function {request.function}")
    torch.manual_seed(0)  # random weights are the same in the next run
    network = _built(build, request)
    if request.weights is not None:
        load_weights(network, Path(request.weights))
    return _exported(network, request), TorchReport(None)


def load_weights(network: nn.Module, path: Path) -> None:
    """Set the weights from a `.safetensors` file, or from a file of torch that holds nothing but tensors.

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


def _built(build: Callable[[], object], request: TorchRequest) -> nn.Module:
    with _told(f"{request.builder} failed; it must build the network without arguments"):
        network = build()
    if not isinstance(network, nn.Module):
        raise UserNetworkError(f"{request.builder} gives {type(network).__name__}, expected a torch module")
    return network


def _exported(network: nn.Module, request: TorchRequest) -> onnx.ModelProto:
    example = np.random.default_rng(0).integers(0, 256, (2, *request.shape), dtype=np.uint8)
    reading = _ReadingBytes(network, request.preprocessing).eval()
    advice = f"the network does not run on pictures {list(request.shape)}; is --input right?"
    with _told(advice), torch.inference_mode():
        logits = reading(torch.from_numpy(example))
    if not isinstance(logits, Tensor) or logits.ndim < 2 or len(logits) != len(example):  # noqa: PLR2004
        raise UserNetworkError(
            f"the network gives {getattr(logits, 'shape', type(logits))}, expected one tensor [2, ...]"
        )
    try:
        return export_network(reading, example)
    except ValueError as error:
        raise UserNetworkError(f"the network cannot be exported: {error}") from error
    except Exception as error:  # torch.onnx raises errors of many kinds
        raise UserNetworkError(
            f"torch cannot export the network; an ONNX file made otherwise can be added instead: {error}"
        ) from error


@contextmanager
def _told(advice: str) -> Iterator[None]:
    """Turn an error of the user's code into its traceback and a line of advice."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise UserNetworkError(f"{_shortened(error)}\n{advice}") from error


def _shortened(error: BaseException) -> str:
    """The traceback without frames of this package, of torch and of the import machinery."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    theirs = [
        frame for frame in shown.stack if not frame.filename.startswith((*_NOT_THEIRS, _IMPORT_MACHINERY))
    ]
    shown.stack = traceback.StackSummary.from_list((theirs or list(shown.stack))[-_MOST_FRAMES:])
    return "".join(shown.format(chain=False)).rstrip()


def _module_of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_free_name(path.stem), path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as an import would: dataclasses and pickles look their module up
    spec.loader.exec_module(module)
    return module


def _free_name(name: str) -> str:
    """The file's own name, unless a module of that name is in use (`queue.py`, `torch.py`)."""
    return name if name not in sys.modules else f"{name}_of_user"


def _make_way(place: str) -> None:
    """Put the user's folders first on the path, and take checkouts of SplitPlace off it.

    A checkout has `services` and `messages` at its top, which would hide folders of these names that have no
    `__init__.py`. From now on all of ours is found through the package `splitplace`, which is loaded.
    """
    checkouts = [entry for entry in sys.path if Path(entry, "splitplace", "messages").is_symlink()]
    sys.path[:] = [entry for entry in sys.path if entry not in checkouts]
    here = Path.cwd()
    folders = [Path(place).resolve().parent, here] if place.endswith(".py") else [here]
    sys.path[:0] = [str(folder) for folder in dict.fromkeys(folders)]


def main() -> None:
    """Do what the request in the folder asks for."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that nothing here needs
    answer(REQUEST, REPORT, export, TorchReport)


if __name__ == "__main__":
    main()
