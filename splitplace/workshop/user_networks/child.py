"""Run one of our modules in a process of its own: a request goes in, a network and a report come back.

Neither what a user's code prints nor how it ends reaches this process. This module needs no torch.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import onnx
from pydantic import TypeAdapter, ValidationError

from splitplace.errors import MissingExtraError
from splitplace.workshop.onnx.aside import laid_aside, with_bare_places
from splitplace.workshop.onnx.light import LARGE_MODEL_BYTES
from splitplace.workshop.user_networks.reading import UserNetworkError, read_onnx

_REQUEST_FILE = "request.json"
_NETWORK_FILE = "network.onnx"
_WEIGHTS_FILE = "network.data"
_REPORT_FILE = "report.json"


class Report(Protocol):
    """What a child reports, a dataclass."""

    @property
    def problem(self) -> str | None:
        """Why there is no network, for the user to read; None if there is one."""
        ...


RequestT = TypeVar("RequestT")
ReportT = TypeVar("ReportT", bound=Report)


def exported_by(
    module: str, source: str, request: bytes, reports: TypeAdapter[ReportT], aside: Path
) -> tuple[onnx.ModelProto, ReportT]:
    """Return the network that a child exports, and its report. What it prints goes to stderr.

    Args:
        module: The child, a module whose `main` calls `answer`.
        source: What the user calls the network.
        request: JSON for the child.
        reports: The type of its report.
        aside: Folder that stays for as long as the network is used: what is exported lies there.

    Raises:
        UserNetworkError: The child reports a problem, or ends without a report.
        MissingExtraError: torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(source, "torch", "models")
    folder = Path(tempfile.mkdtemp(dir=aside))
    (folder / _REQUEST_FILE).write_bytes(request)
    # -P keeps the current folder out of the way until all of ours is imported.
    command = [sys.executable, "-P", "-m", module, str(folder)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False)  # noqa: S603
    try:
        report = reports.validate_json((folder / _REPORT_FILE).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise UserNetworkError(
            f"the process that loads {source} ended with {_how(ended.returncode)} and no report"
        ) from error
    if report.problem is not None:
        raise UserNetworkError(report.problem)
    return read_onnx(folder / _NETWORK_FILE, aside), report


def answer(
    requests: TypeAdapter[RequestT],
    reports: TypeAdapter[ReportT],
    export: Callable[[RequestT], tuple[onnx.ModelProto, ReportT]],
    failed: Callable[[str], ReportT],
) -> None:
    """Do, in the child, what the request in the folder of its first argument asks for.

    Args:
        requests: The type of the request.
        reports: The type of the report.
        export: Function that makes the network; its `UserNetworkError` becomes the report's problem.
        failed: Function that makes a report of a problem.
    """
    folder = Path(sys.argv[1])
    try:
        model, report = export(requests.validate_json((folder / _REQUEST_FILE).read_bytes()))
        if sum(tensor.ByteSize() for tensor in model.graph.initializer) > LARGE_MODEL_BYTES:
            model, _ = with_bare_places(laid_aside(model, folder / _WEIGHTS_FILE))
        onnx.save_model(model, folder / _NETWORK_FILE)
    except UserNetworkError as error:
        report = failed(str(error))
    (folder / _REPORT_FILE).write_bytes(reports.dump_json(report))


def _how(code: int) -> str:
    return f"signal {-code} (is there enough memory?)" if code < 0 else f"exit code {code}"
