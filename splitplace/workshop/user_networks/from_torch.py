"""Take a user's torch network: their code builds and exports it in a process of its own.

That process sees the user's packages under their own names (`models`, `utils`, `services`, ...), whatever
this one has imported. Only the ONNX file and a line of JSON come back. This module needs no torch.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from pydantic import TypeAdapter, ValidationError

from splitplace.errors import MissingExtraError
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError

CHILD = "splitplace.workshop.user_networks.torch_child"
REQUEST_FILE = "request.json"
NETWORK_FILE = "network.onnx"
REPORT_FILE = "report.json"


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


def export_torch(request: TorchRequest) -> onnx.ModelProto:
    """Return the network as ONNX, reading bytes `[N, C, H, W]`. What the user's code prints goes to stderr.

    Raises:
        UserNetworkError: The code, the network or its weights are of no use.
        MissingExtraError: torch is not installed.
    """
    if not request.place:
        raise UserNetworkError(
            f"{request.builder!r} is neither FILE.py:FUNCTION nor PACKAGE.MODULE:FUNCTION, nor an ONNX file"
        )
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(request.builder, "torch", "models")
    with tempfile.TemporaryDirectory(prefix="splitplace-") as name:
        folder = Path(name)
        (folder / REQUEST_FILE).write_bytes(REQUEST.dump_json(request))
        # -P keeps the current folder out of the way until all of ours is imported.
        command = [sys.executable, "-P", "-m", CHILD, name]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False)  # noqa: S603
        problem = _report(folder, request, ended.returncode).problem
        if problem is not None:
            raise UserNetworkError(problem)
        return onnx.load_model(folder / NETWORK_FILE, load_external_data=False)


def _report(folder: Path, request: TorchRequest, code: int) -> TorchReport:
    try:
        return REPORT.validate_json((folder / REPORT_FILE).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        how = f"signal {-code} (is there enough memory?)" if code < 0 else f"exit code {code}"
        raise UserNetworkError(
            f"the process that loads {request.builder} ended with {how} and no report"
        ) from error
