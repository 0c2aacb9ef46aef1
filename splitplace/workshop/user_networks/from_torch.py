"""Take a user's torch network: their code builds and exports it in a process of its own.

That process sees the user's packages under their own names (`models`, `utils`, `services`, ...), whatever
this one has imported. Only the ONNX file and a line of JSON come back. This module needs no torch.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx
from pydantic import TypeAdapter

from splitplace.workshop.user_networks.child import exported_by
from splitplace.workshop.user_networks.preprocessing import Preprocessing

CHILD = "splitplace.workshop.user_networks.torch_child"


@dataclass(frozen=True)
class TorchRequest:
    """What the child is asked for."""

    builder: str
    """`FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION`."""
    shape: tuple[int, int, int]
    """Channels, height and width of the pictures."""
    preprocessing: Preprocessing
    weights: str | None = None
    """File of the weights; None keeps those that the function sets."""

    @property
    def place(self) -> str:
        """The file or module."""
        return self.builder.rpartition(":")[0]

    @property
    def function(self) -> str:
        """The name of the function."""
        return self.builder.rpartition(":")[2]


@dataclass(frozen=True)
class TorchReport:
    """What the child reports."""

    problem: str | None
    """Why there is no network, for the user to read; None if there is one."""


REQUEST: TypeAdapter[TorchRequest] = TypeAdapter(TorchRequest)
REPORT: TypeAdapter[TorchReport] = TypeAdapter(TorchReport)


def export_torch(request: TorchRequest, aside: Path) -> onnx.ModelProto:
    """Return the network as ONNX, reading bytes `[N, C, H, W]`. What the user's code prints goes to stderr.

    The weights of a large network are kept in the folder `aside`; see `read_onnx`.

    Raises:
        UserNetworkError: The code, the network or its weights are of no use.
        MissingExtraError: torch is not installed.
    """
    model, _ = exported_by(CHILD, request.builder, REQUEST.dump_json(request), REPORT, aside)
    return model
