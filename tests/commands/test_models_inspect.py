"""`splitplace models inspect`, from a file and from a store."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.branching_networks import detector, unet
from tests.support.commands import exit_code

CHANNELS, SIDE, CLASSES = 8, 12, 5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Four convolutions, a mean and a product, saved as a model of somebody else."""
    random = np.random.default_rng(0)
    nodes, weights, tensor = [], [], "picture"
    for index in range(4):
        channels_in = CHANNELS if index else 3
        kernel = random.standard_normal((CHANNELS, channels_in, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{index}"))
        nodes.append(helper.make_node("Conv", [tensor, f"kernel{index}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        tensor = f"r{index}"
    head = random.standard_normal((CHANNELS, CLASSES)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "mine.onnx"
    onnx.save(model, path)
    return path


def run(*arguments: object) -> int:
    return exit_code("models", "inspect", *arguments)


def test_a_file_is_shown_with_its_cut_points_and_a_plan_for_unlike_nodes(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = file.with_suffix(".svg")
    assert run(file, "--speeds", "1,0.5", "--bandwidth", 1000, "--draw", drawing) == 0
    shown = capsys.readouterr().out
    assert re.search(r"mine: \d+ places to cut", shown)
    assert "mine: 1 pieces" in shown, "it is tiny"
    assert "mine: the best chain of 2" in shown
    words = " ".join(shown.split())
    difference = re.search(r"differ from the whole's by at most (\S+), and by (\S+) with", words)
    assert difference is not None
    assert float(difference[1]) <= 1e-4
    assert 0 < float(difference[2]) < 1
    assert "mine in 2 stages" in drawing.read_text("utf-8")


def test_any_file_is_shown_whatever_it_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(detector(several_outputs=True), tmp_path / "finds.onnx")
    assert run(tmp_path / "finds.onnx", "--stages", 4) == 0
    shown = capsys.readouterr().out
    assert re.search(r"finds: \d+ pieces", shown)
    assert "finds: the best chain of 4" in shown


def test_an_application_whose_stages_hand_on_several_tensors_is_compared_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(unet(), "unet.onnx")
    for command in (
        ("add", "unet.onnx", "--kind", "tensors", "--stages", "4", "--store", "store"),
        ("inspect", "unet", "--store", "store"),
        ("report", "unet", "--store", "store", "--out", "page"),
    ):
        assert exit_code("models", *command) == 0
        shown = capsys.readouterr().out
        assert command[0] != "inspect" or "layer in the store: the slowest of 4 stages computes" in shown
    page = Path("page", "index.html").read_text("utf-8")
    assert "Cuts of layer" in page


def test_the_chains_of_an_application_are_compared_with_the_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("mnist", "--stages", 2) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "mnist: the best chain of 2" in shown
    assert re.search(r"mnist: \d+ pieces of 7 networks", shown)
    assert "whole 1 " in shown
    assert " layer " in shown, "the chain that is cut after a piece"
    assert "layer in the store: the slowest of 3 stages computes" in shown
    assert "mnist: memory of a node for each stage" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--stages", "25"], 1, "places to cut, too few for 25 stages"),
        (["--memory", "0.0001"], 1, "no way to make 3 stages fits into the memory"),
        (["--speeds", "1,x"], 2, "'1,x' is no list of speeds above 0"),
        (["--speeds", "1,0"], 2, "'1,0' is no list of speeds above 0"),
        (["--speeds", "1,1", "--stages", "3"], 2, "2 nodes are given for 3 stages"),
    ],
)
def test_what_cannot_be_planned_is_explained(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, reason: str
) -> None:
    assert run(file, *arguments) == code
    assert reason in capsys.readouterr().err


def test_an_unknown_application_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("unheard-of") == 1
    assert "has no application 'unheard-of'" in capsys.readouterr().err
