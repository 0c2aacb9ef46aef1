"""Networks of torchvision and timm by their names (of stand-ins), and files of torch.export."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime
from tests.support.commands import exit_code

NETWORK = """
import torch
from torch import nn

def small(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )
"""
TORCHVISION = """
from types import SimpleNamespace
from network import small

class _Weights:
    meta = {"categories": ["red", "green", "blue"]}
    def __init__(self, **sides):
        self.sides = sides
    def transforms(self):
        return SimpleNamespace(
            **self.sides, mean=[0.5, 0.25, 0.125], std=[0.5, 0.5, 0.5],
            interpolation=SimpleNamespace(value="bicubic"),
        )

def build_small(weights=None):
    if weights is not None:
        raise OSError("the hub cannot be reached")
    return small()

def build_on_backbone(weights=None, weights_backbone="published"):
    return build_small(weights or weights_backbone)

_MODELS = {
    "small": (build_small, _Weights(crop_size=[28], resize_size=[32])),
    "on_backbone": (build_on_backbone, _Weights(resize_size=[20])),
}

def get_model_builder(name):
    if name not in _MODELS:
        raise ValueError(f"Unknown model {name}")
    return _MODELS[name][0]

def get_model_weights(name):
    get_model_builder(name)
    return SimpleNamespace(DEFAULT=_MODELS[name][1])
"""
TIMM = """
from types import SimpleNamespace
from network import small

def create_model(name, pretrained=False):
    return small()

data = SimpleNamespace(resolve_data_config=lambda _, model: {
    "input_size": (3, 24, 24), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.9,
    "interpolation": "bicubic",
})
"""


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)  # the process that exports finds what stands in for packages
    Path("network.py").write_text(NETWORK)
    Path("labels.txt").write_text("a\nb\nc\n")


@pytest.fixture
def stand_in() -> Callable[[], None]:
    """Write packages that are called like the real ones."""

    def write() -> None:
        Path("torchvision").mkdir()
        Path("torchvision/__init__.py").touch()
        Path("torchvision/models.py").write_text(TORCHVISION)
        Path("timm.py").write_text(TIMM)

    return write


def _run(*arguments: str) -> int:
    return exit_code("models", "add", *arguments, "--store", "store")


def _application(name: str) -> Application:
    return ModelStore(Path("store")).application(name)


def _small() -> torch.nn.Module:
    namespace: dict[str, object] = {}
    exec(NETWORK, namespace)
    network: torch.nn.Module = namespace["small"]()  # type: ignore[operator]
    return network.eval()


def test_what_torchvision_says_of_labels_and_pictures_is_taken(stand_in: Callable[[], None]) -> None:
    stand_in()
    network = _small()
    with torch.no_grad():
        network[4].bias.copy_(torch.tensor([1.0, -2.0, 3.0]))  # type: ignore[index]
    save_file(network.state_dict(), "weights.safetensors")
    assert _run("torchvision:small", "--weights", "weights.safetensors", "--accuracy", "0.5") == 0
    application = _application("small")
    assert application.labels == ("red", "green", "blue")
    assert application.input.shape == (3, 28, 28)
    assert not application.caution
    pictures = application.pictures
    assert pictures is not None
    assert (pictures.fit, pictures.crop_share, pictures.interpolation) == ("crop", 28 / 32, "bicubic")
    assert "torchvision" in pictures.rule
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 28, 28), dtype=np.uint8)
    mean = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)
    with torch.no_grad():
        expected = network((torch.from_numpy(images) / 255 - mean) / 0.5).numpy()
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    for variant in application.variants:
        np.testing.assert_allclose(variant_logits(application, variant, load, images), expected, atol=1e-4)


def test_random_weights_are_taken_only_when_asked_for_and_every_answer_says_so(
    stand_in: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in()
    command = ("timm:small", "--labels", "labels.txt", "--accuracy", "0.5")
    assert _run(*command, "--random-weights") == 0
    application = _application("small")
    assert "random" in application.caution
    assert application.input.shape == (3, 24, 24)
    assert _run("torchvision:small", "--accuracy", "0.5") != 0
    said = capsys.readouterr().err
    assert "the hub cannot be reached (--weights FILE or --random-weights fetches nothing)" in said


def test_random_weights_fetch_no_backbone_and_what_is_not_cropped_has_the_size_it_is_resized_to(
    stand_in: Callable[[], None],
) -> None:
    stand_in()
    assert _run("torchvision:on_backbone", "--accuracy", "0.5", "--random-weights") == 0
    application = _application("on-backbone")
    assert application.input.shape == (3, 20, 20)
    assert application.pictures is not None
    assert application.pictures.crop_share == 1


@pytest.mark.parametrize(
    ("network", "flags", "reason"),
    [
        ("torchvision:small", ("--random-weights",), "torchvision is not installed: pip install torchvision"),
        ("timm:small", ("--random-weights",), "timm is not installed: pip install timm"),
        ("timm:small", ("--random-weights", "--weights", "w.pt"), "exclude each other"),
        ("network.pt2", (), "cannot be read as a file of torch.export"),
        ("network.pt2", ("--random-weights",), "has weights of its own"),
        (
            "network.py:small",
            ("--random-weights", "--input", "3x8x8"),
            "is for torchvision:NAME and timm:NAME",
        ),
    ],
)
def test_what_cannot_be_taken_says_why_in_one_line(
    network: str, flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "not installed" in reason:  # whatever is installed here
        Path("torchvision.py").write_text("raise ImportError('No module named torchvision')\n")
        Path("timm.py").write_text("raise ImportError('No module named timm')\n")
    Path("network.pt2").write_bytes(b"no program")
    assert _run(network, "--labels", "labels.txt", "--accuracy", "0.5", *flags) != 0
    said = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith(("small: ", "network: "))
    ]
    assert reason in said[-1]
    assert not Path("store").exists()


def test_an_exported_program_answers_as_in_torch() -> None:
    network = _small()
    example = torch.zeros(2, 3, 16, 16)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, "small.pt2")
    assert _run("small.pt2", "--labels", "labels.txt", "--accuracy", "0.5", "--output-kind", "logits") == 0
    application = _application("small")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(images) / 255).numpy()
    load = partial(stage_runtime, ModelStore(Path("store")), application)
    for variant in application.variants:
        np.testing.assert_allclose(variant_logits(application, variant, load, images), expected, atol=1e-4)
