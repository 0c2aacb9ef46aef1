"""A user's code runs in a process of its own: under the names that it has, and with its own errors."""

from pathlib import Path

import onnx
import pytest

from splitplace.workshop.user_networks.from_torch import TorchRequest, export_torch
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError

NETWORK = """
from dataclasses import dataclass

import torch
from models.small import Small
from services import CLASSES
from messages.words import greeting
from utils import classes_of

@dataclass
class Sizes:
    classes: int = classes_of(CLASSES)

def build():
    print(greeting)
    return Small(Sizes().classes)

def fails():
    raise KeyError("my own mistake")

def exits():
    raise SystemExit(7)

def dies():
    import os
    os.kill(os.getpid(), 9)

class Narrow(torch.nn.Module):
    def forward(self, images):
        return self.inner(images)

    def inner(self, images):
        return torch.nn.functional.conv2d(images, torch.zeros(1, 99, 1, 1))

def narrow():
    return Narrow()
"""

SMALL = """
import torch

class Small(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = torch.nn.Linear(3, classes)

    def forward(self, images):
        return self.head(images.mean(dim=(2, 3)))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose packages are named as ours are; two of them without `__init__.py`."""
    monkeypatch.chdir(tmp_path)
    for folder in ("models", "services", "messages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "models" / "small.py").write_text(SMALL)
    (tmp_path / "services" / "__init__.py").write_text("CLASSES = ['a', 'b', 'c', 'd']")
    (tmp_path / "messages" / "words.py").write_text("greeting = 'hello from my code'")
    (tmp_path / "utils.py").write_text("classes_of = len")
    (tmp_path / "network.py").write_text(NETWORK)
    return tmp_path


def request(builder: str) -> TorchRequest:
    return TorchRequest(builder, (3, 8, 8), Preprocessing.for_channels(3, (), (), 1.0))


def classes(model: onnx.ModelProto) -> int:
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def test_packages_named_as_ours_are_found_by_a_file_from_any_folder(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert classes(export_torch(request(f"{project / 'network.py'}:build"), project)) == 4


def test_a_module_is_found_from_the_current_folder(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "services" / "nets.py").write_text("from network import build")
    assert classes(export_torch(request("services.nets:build"), project)) == 4
    printed = capfd.readouterr()
    assert "hello from my code" in printed.err
    assert printed.out == ""


def test_a_file_named_as_a_module_in_use_is_loaded_all_the_same(project: Path) -> None:
    (project / "queue.py").write_text(SMALL + "\ndef build():\n    return Small(2)\n")
    assert classes(export_torch(request("queue.py:build"), project)) == 2


@pytest.mark.parametrize(
    ("function", "shown", "advice"),
    [
        ("fails", ["network.py", "in fails", "KeyError: 'my own mistake'"], "without arguments"),
        ("exits", ["in exits", "SystemExit: 7"], "without arguments"),
        ("narrow", ["in forward", "in inner", "RuntimeError"], "is --input right?"),
    ],
)
def test_an_error_of_the_users_code_is_shown_as_its_own_traceback_and_one_line_of_advice(
    project: Path, function: str, shown: list[str], advice: str
) -> None:
    with pytest.raises(UserNetworkError) as raised:
        export_torch(request(f"{project / 'network.py'}:{function}"), project)
    *trace, last = str(raised.value).splitlines()
    assert advice in last
    assert trace[0] == "Traceback (most recent call last):"
    assert all(part in "\n".join(trace) for part in shown)
    files = [line for line in trace if line.lstrip().startswith("File ")]
    assert files
    assert all(str(project) in line for line in files)  # nothing of torch, of importlib or of ours


def test_a_missing_package_and_a_slip_of_the_pen_are_shown_where_they_are(project: Path) -> None:
    (project / "absent.py").write_text("\nimport no_such_package")
    with pytest.raises(UserNetworkError, match=r"(?s)line 2.*No module named 'no_such_package'.*installed"):
        export_torch(request("absent.py:build"), project)
    (project / "slip.py").write_text("def build(:\n    pass")
    with pytest.raises(UserNetworkError, match=r"(?s)slip\.py.*line 1.*SyntaxError.*cannot be imported"):
        export_torch(request("slip.py:build"), project)


def test_code_that_takes_its_process_with_it_is_reported(project: Path) -> None:
    with pytest.raises(UserNetworkError, match="ended with signal 9"):
        export_torch(request(f"{project / 'network.py'}:dies"), project)
