"""The process that takes a network of torchvision or timm, or a file of torch.export, and exports it as ONNX.

    python -P -m splitplace.workshop.user_networks.package_child FOLDER

`child` says what is in the folder.
"""

import inspect
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from splitplace.workshop.onnx.export import OPSET
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.user_networks.child import answer
from splitplace.workshop.user_networks.from_packages import REPORT, REQUEST, PackageReport, PackageRequest
from splitplace.workshop.user_networks.reading import UserNetworkError, first_line
from splitplace.workshop.user_networks.torch_child import load_weights

_USUAL_SIDES = (3, 224, 224)
Taken = tuple[nn.Module, tuple[int, ...], PackageReport]


class _Plain(nn.Module):
    """A network whose answers are tensors, not a dictionary of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        made = self.network(images)
        return tuple(made.values()) if isinstance(made, Mapping) else made


def export(request: PackageRequest) -> tuple[onnx.ModelProto, PackageReport]:
    """Take the network and export it, without preprocessing.

    Raises:
        UserNetworkError: There is no such network, or torch cannot export it.
    """
    if not request.package:
        return _of_file(Path(request.network)), PackageReport()
    torch.manual_seed(0)  # random weights are the same in the next run
    take = {"torchvision": _of_torchvision, "timm": _of_timm}[request.package]
    network, sides, report = take(request)
    if request.weights is not None:
        load_weights(network, Path(request.weights))
    network.eval()
    example = torch.zeros(2, *(request.sides or sides))
    try:
        with torch.inference_mode():
            made = network(example)
    except Exception as error:  # of the network's code
        raise UserNetworkError(
            f"{request.network} does not run on pictures {list(example.shape[1:])}: {first_line(error)}; "
            "say --input"
        ) from error
    names = list(made) if isinstance(made, Mapping) else None
    return _exported(
        _Plain(network),
        (example,),
        input_names=["images"],
        output_names=names or ["output"],
        dynamic_shapes={"images": {0: torch.export.Dim(BATCH)}},
    ), report


def _of_torchvision(request: PackageRequest) -> Taken:
    models = _package("torchvision", "torchvision.models")
    try:
        published: Any = models.get_model_weights(request.name).DEFAULT
        build = models.get_model_builder(request.name)
        if request.is_published:
            network = build(weights=published)
        elif "weights_backbone" in inspect.signature(build).parameters:
            network = build(weights=None, weights_backbone=None)  # it is fetched otherwise
        else:
            network = build(weights=None)
    except Exception as error:  # of the package, and of what fetches its weights
        raise UserNetworkError(_problem(request, error)) from error
    report = PackageReport(labels=tuple(map(str, published.meta.get("categories") or ())))
    seen = published.transforms()
    if not hasattr(seen, "mean"):
        return network, _USUAL_SIDES, report
    resized = getattr(seen, "resize_size", None)
    cropped = getattr(seen, "crop_size", None) or resized or _USUAL_SIDES[1:]
    side = int(cropped[0])
    report = replace(
        report,
        mean=tuple(map(float, seen.mean)),
        deviation=tuple(map(float, seen.std)),
        crop_share=side / int((resized or cropped)[0]),
        interpolation=str(getattr(getattr(seen, "interpolation", ""), "value", "")),
        rule="as torchvision prepares them for these weights",
    )
    return network, (3, side, side), report


def _of_timm(request: PackageRequest) -> Taken:
    timm = _package("timm", "timm")
    try:
        network = timm.create_model(request.name, pretrained=request.is_published)
        seen = timm.data.resolve_data_config({}, model=network)
    except Exception as error:  # of the package, and of what fetches its weights
        raise UserNetworkError(_problem(request, error)) from error
    report = PackageReport(
        mean=tuple(map(float, seen["mean"])),
        deviation=tuple(map(float, seen["std"])),
        crop_share=float(seen.get("crop_pct", 1.0)),
        interpolation=str(seen.get("interpolation", "")),
        rule="as timm prepares them for this network",
    )
    return network, tuple(seen["input_size"]), report


def _of_file(path: Path) -> onnx.ModelProto:
    try:
        program = torch.export.load(path)
    except Exception as error:  # a file of something else ends in almost any of Python's errors
        raise UserNetworkError(
            f"{path} cannot be read as a file of torch.export: {first_line(error)}"
        ) from error
    return _exported(program)


def _exported(*arguments: Any, **more: Any) -> onnx.ModelProto:  # noqa: ANN401 - those of torch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                *arguments, dynamo=True, opset_version=OPSET, verbose=False, **more
            )
    except Exception as error:  # torch.onnx raises errors of many kinds
        raise UserNetworkError(
            "torch cannot export the network; an ONNX file made otherwise can be added instead: "
            f"{first_line(error)}"
        ) from error
    if program is None:
        raise UserNetworkError("torch's exporter returned no program")
    model: onnx.ModelProto = program.model_proto
    return model


def _package(name: str, module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserNetworkError(
            f"{name} is not installed: pip install {name} ({first_line(error)})"
        ) from error
    except Exception as error:  # of a build that does not fit this torch
        raise UserNetworkError(
            f"{name} cannot be imported; it must fit torch {torch.__version__}: {first_line(error)}"
        ) from error


def _problem(request: PackageRequest, error: Exception) -> str:
    advice = " (--weights FILE or --random-weights fetches nothing)" if request.is_published else ""
    return f"{request.network}: {first_line(error)}{advice}"


def main() -> None:
    """Do what the request in the folder asks for."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that nothing here needs
    answer(REQUEST, REPORT, export, PackageReport)


if __name__ == "__main__":
    main()
