"""Take a network of torchvision or timm by its name, or a file of torch.export.

A process of its own exports it. What these packages say of their networks (labels, mean, deviation, size)
comes back beside the ONNX file. This module needs no torch.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx
from pydantic import TypeAdapter

from splitplace.messages.pictures import INTERPOLATIONS, PictureInput
from splitplace.workshop.user_networks.child import exported_by
from splitplace.workshop.user_networks.reading import UserNetworkError

CHILD = "splitplace.workshop.user_networks.package_child"
PACKAGES = ("torchvision", "timm")
EXPORTED = ".pt2"
RANDOM = "the weights of this network are random: its answers mean nothing"


@dataclass(frozen=True)
class PackageRequest:
    """What the child is asked for."""

    network: str
    """`torchvision:NAME`, `timm:NAME`, or a file of torch.export."""
    weights: str | None = None
    """File of the weights; None = those that the package publishes."""
    random_weights: bool = False
    sides: tuple[int, ...] = ()
    """Channels, height and width; empty = as the package says."""

    @property
    def package(self) -> str:
        """The package; empty for a file."""
        return "" if self.network.endswith(EXPORTED) else self.network.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the network in its package."""
        return self.network.partition(":")[2]

    @property
    def is_published(self) -> bool:
        """Whether the package fetches the weights that it publishes."""
        return self.weights is None and not self.random_weights


@dataclass(frozen=True)
class PackageReport:
    """What the child reports."""

    problem: str | None = None
    """Why there is no network, for the user to read; None if there is one."""
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    crop_share: float = 1.0
    interpolation: str = ""
    rule: str = ""
    """Who says how pictures are prepared; empty where nobody does."""

    @property
    def pictures(self) -> PictureInput | None:
        """How pictures are prepared; None where nobody says it."""
        if not self.rule:
            return None
        known = self.interpolation in INTERPOLATIONS
        return PictureInput.model_validate(
            {
                "mean": self.mean,
                "deviation": self.deviation,
                "fit": "crop",
                "crop_share": min(1.0, self.crop_share),
                "interpolation": self.interpolation if known else "bilinear",
                "rule": self.rule,
            }
        )


REQUEST: TypeAdapter[PackageRequest] = TypeAdapter(PackageRequest)
REPORT: TypeAdapter[PackageReport] = TypeAdapter(PackageReport)


def is_of_package(network: str) -> bool:
    """Whether a network is named as one of a package, or is a file of torch.export."""
    return network.endswith(EXPORTED) or network.partition(":")[0] in PACKAGES


def export_of_package(request: PackageRequest, aside: Path) -> tuple[onnx.ModelProto, PackageReport]:
    """Return the network as ONNX, as its package has it, and what the package says of it.

    The weights of a large network are kept in the folder `aside`; see `read_onnx`.

    Raises:
        UserNetworkError: There is no such network, its weights are of no use, or torch cannot export it.
        MissingExtraError: torch is not installed.
    """
    if request.weights is not None and request.random_weights:
        raise UserNetworkError("--weights and --random-weights exclude each other")
    if not request.package and not request.is_published:
        raise UserNetworkError(f"{request.network} has weights of its own: leave the flags of weights out")
    return exported_by(CHILD, request.network, REQUEST.dump_json(request), REPORT, aside)
