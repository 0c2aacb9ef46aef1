"""A detector is added while the system runs, and a photo comes back with boxes on it."""

import json
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from PIL import Image

from splitplace.commands.shared.drawing import colour_of
from tests.support.commands import exit_code, measure_quickly
from tests.support.pictures import squares
from tests.support.square_finder import square_finder
from tests.support.waiting import PATIENCE_S
from tests.support.whole_system import Setup, System, running_system

pytestmark = pytest.mark.system

PLACES = [(140, 80), (300, 240)]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with running_system(tmp_path, "mosquitto", Setup(nodes=("n1", "n2"), together=True)) as started:
        yield started


def test_a_photo_comes_back_with_boxes_in_its_own_pixels(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    onnx.save_model(square_finder(), tmp_path / "squares.onnx")
    (tmp_path / "labels.txt").write_text("square\n")
    (tmp_path / "photo.png").write_bytes(squares(480, 360, *PLACES, side=80))
    added = ("--labels", tmp_path / "labels.txt", "--kind", "detection", "--fit", "pad", "--padding", "20")
    assert exit_code("models", "add", tmp_path / "squares.onnx", *added, "--store", tmp_path / "store") == 0
    sent = ("submit", tmp_path / "photo.png", "--app", "squares", "--deadline", "40s", "--json")
    broker = ("--broker", system.broker.url, "--save", tmp_path / "out.png")
    for _ in range(int(PATIENCE_S)):  # until the splitter has looked at its store
        capsys.readouterr()
        code = exit_code(*sent, *broker)
        answer = json.loads(capsys.readouterr().out)
        if code == 0:
            break
    assert answer["status"] == "answered", answer["reason"]
    (found,) = answer["predictions"]
    assert found["kind"] == "detection"
    assert sorted(each["label"] for each in found["objects"]) == ["square", "square"]
    for each, (left, top) in zip(sorted(found["objects"], key=lambda each: each["box"]), PLACES, strict=True):
        assert each["box"] == pytest.approx((left, top, left + 80, top + 80), abs=2)
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (480, 360)
        assert colour_of(0) in {
            drawn.getpixel((column, 120)) for column in range(137, 144)
        }  # a side of its box
