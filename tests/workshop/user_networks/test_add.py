"""A network of one's own becomes an application, by the commands that a user gives."""

import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from splitplace.storage.model_store import ModelStore
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.packing.evaluation import variant_logits
from splitplace.workshop.pieces.loaded import stage_runtime
from splitplace.workshop.user_networks.add import usual_micro_batch
from tests.support.commands import exit_code, measure_quickly
from tests.support.small_pieces import small_convolutions

MODEL = """
import torch
from torch import nn

class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.body(self.stem(images)).mean(dim=(2, 3)))

def build():
    torch.manual_seed(0)
    return Colours()

def nothing():
    return 3
"""


def _run(*arguments: str | Path) -> int:
    return exit_code("models", *arguments)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_quickly(monkeypatch)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user is, with code, an ONNX file, labels, and pictures that are all of one colour."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n\n")
    onnx.save_model(_channel_means(), tmp_path / "colours.onnx")
    for channel, label in enumerate(("red", "green", "blue")):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(3):
            colour = tuple(200 if channel == index else 10 * number for index in range(3))
            Image.new("RGB", (16, 16), colour).save(tmp_path / "pictures" / label / f"{number}.png")
    return tmp_path


def _channel_means() -> onnx.ModelProto:
    """Whose logits are how red, green and blue a picture is."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_onnx_file_is_cut_measured_and_can_be_evaluated_exported_and_removed(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, pictures = ("--store", user / "store"), ("--data", user / "pictures")
    labels = ("--labels", user / "labels.txt")
    command = (
        "add",
        user / "colours.onnx",
        *labels,
        *pictures,
        "--output-kind",
        "logits",
        "--stages",
        "3,2",
        "--memory",
        "48",
        *store,
    )
    assert _run(*command) == 0
    assert "a node of 48 MiB holds it whole" in capsys.readouterr().out
    application = ModelStore(user / "store").application("colours")
    assert [(variant.name, len(variant.stages)) for variant in application.variants] == [
        ("whole", 1),
        ("layer", 3),
        ("layer-2", 2),
    ]
    for variant in application.variants:
        assert (variant.accuracy, variant.accuracy_images) == (1.0, 9)
    assert application.labels == ("red", "green", "blue")

    assert all(fragment.memory is not None for fragment in application.fragments)
    assert _run("evaluate", "colours", *pictures, *store) == 0
    assert _run("profile", "colours", "--write", *store) == 0
    assert ModelStore(user / "store").application("colours").variants == application.variants
    assert _run("list", *store) == 0
    assert "colours" in capsys.readouterr().out
    assert _run("export", "colours", user / "colours.zip", *store) == 0
    assert _run("remove", "colours", "--yes", *store) == 0
    assert _run("evaluate", "colours", *pictures, *store) == 1
    with zipfile.ZipFile(user / "colours.zip") as archive:
        archive.extractall(user / "store")
    assert _run("evaluate", "colours", *pictures, *store) == 0


def test_a_network_may_be_larger_than_a_file_of_a_node(
    user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    most = 16 * 1024
    for module in ("workshop.pieces.cut", "edge_node.stage.pieces", "storage.model_store"):
        monkeypatch.setattr(f"splitplace.{module}.MAX_FILE_BYTES", most)
    onnx.save_model(small_convolutions(6), user / "large.onnx")
    assert (user / "large.onnx").stat().st_size > 2 * most
    (user / "four.txt").write_text("a\nb\nc\nd\n")
    command = ("add", "large.onnx", "--labels", "four.txt", "--accuracy", "0.5", "--store", "store")
    assert _run(*command) == 1
    assert f"a node accepts {most}" in capsys.readouterr().err, "it is tiny, so it is cut into few pieces"
    monkeypatch.setattr("splitplace.workshop.pieces.bounds.LEAST_WEIGHT_BYTES", 4096)
    assert _run(*command) == 0
    application = ModelStore(user / "store").application("large")
    assert (
        max(file.file_bytes for file in application.files)
        <= most
        < sum(file.file_bytes for file in application.files)
    )


@pytest.mark.parametrize(
    ("sides", "copies", "count"),
    [
        ((5,), 1, 16),
        ((3, 28, 28), 1, 16),
        ((3, 224, 224), 1, 2),
        ((3, 320, 320), 1, 2),
        ((3, 480, 640), 1, 1),
        ((7500,), 200, 5),
        ((7500,), 2000, 1),
    ],
)
def test_what_becomes_large_is_run_fewer_at_a_time(sides: tuple[int, ...], copies: int, count: int) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *sides])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Concat", ["x"] * copies, ["y"], axis=1)]
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "repeats", [given], [made]), opset_imports=opset)
    assert usual_micro_batch(Graph(onnx.shape_inference.infer_shapes(model))) == count


def test_it_says_on_standard_error_what_it_does(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("--labels", user / "labels.txt")
    arguments = ("--accuracy", "1", "--input", "3x16x16", "--store", user / "store")
    assert _run("add", f"{user / 'my_model.py'}:build", *labels, *arguments) == 0
    said = capsys.readouterr().err
    steps = [f"building and exporting {user / 'my_model.py'}:build", "timing the layers", "writing whole in"]
    places = [said.index(step) for step in (*steps, "fragments", "measuring layer on 4 inputs")]
    assert places == sorted(places)


def test_torch_code_with_its_weights_answers_as_it_does_in_torch(user: Path) -> None:
    namespace: dict[str, object] = {}
    exec(MODEL, namespace)
    network = namespace["build"]()  # type: ignore[operator]
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    torch.save(network.state_dict(), user / "weights.pt")
    arguments = ("--labels", user / "labels.txt", "--input", "3x16x16", "--weights", user / "weights.pt")
    scaling = ("--mean", "0.5", "--std", "0.5,0.25,0.125", "--accuracy", "0.7")
    code = f"{user / 'my_model.py'}:build"
    assert _run("add", code, *arguments, *scaling, "--stages", "2", "--store", user / "store") == 0
    store = ModelStore(user / "store")
    application = store.application("my-model")
    assert {(variant.accuracy, variant.accuracy_images) for variant in application.variants} == {(0.7, 0)}
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
    deviation = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)
    with torch.no_grad():
        expected = network((torch.from_numpy(images) / 255 - 0.5) / deviation).numpy()
    load = partial(stage_runtime, store, application)
    for name in ("whole", "layer"):
        found = variant_logits(application, application.variant(name), load, images)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("network", "more", "reason"),
    [
        ("colours.onnx", (), "say how good it is"),
        (
            "colours.onnx",
            ("--accuracy", "1", "--output-kind", "logits", "--stages", "9"),
            "too few for 9 stages",
        ),
        ("colours.onnx", ("--accuracy", "1", "--input", "3x8x8"), "the file says 3x16x16"),
        ("colours.onnx", ("--accuracy", "1", "--mean", "1,2"), "3 channels"),
        (
            "colours.onnx",
            ("--accuracy", "1", "--output-kind", "logits", "--labels", "two.txt"),
            "there are 2 labels",
        ),
        ("missing.onnx", ("--accuracy", "1"), "missing.onnx: No such file or directory"),
        ("my_model.py:build", ("--accuracy", "1"), "say the shape of its pictures"),
        ("my_model.py:build", ("--accuracy", "1", "--input", "3"), "expected channels x height x width"),
        ("my_model.py:absent", ("--accuracy", "1", "--input", "3x16x16"), "has no function absent"),
        ("my_model.py:nothing", ("--accuracy", "1", "--input", "3x16x16"), "gives int"),
        ("my_model.py:build", ("--accuracy", "1", "--input", "1x16x16"), "does not run on pictures"),
        ("my_model.py", ("--accuracy", "1", "--input", "3x16x16"), "no FILE.py:FUNCTION"),
        ("model.tflite", ("--accuracy", "1"), "neither FILE.onnx"),
        (
            "my_model.py:build",
            ("--accuracy", "1", "--input", "3x16x16", "--weights", "two.txt"),
            "are not the network's weights",
        ),
    ],
)
def test_what_cannot_be_added_is_refused_with_the_reason(
    user: Path, network: str, more: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (user / "two.txt").write_text("red\ngreen\n")
    labels = () if "--labels" in more else ("--labels", "labels.txt")
    assert _run("add", network, *labels, *more, "--store", "store") in {1, 2}
    assert reason in capsys.readouterr().err
    assert not (user / "store").exists()


@pytest.mark.usefixtures("user")
def test_a_store_that_cannot_be_written_is_said_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("--accuracy", "1", "--labels", "labels.txt", "--store")
    assert _run("add", "colours.onnx", *more, "labels.txt/store") == 1
    shown = capsys.readouterr().err
    assert "is no folder: name another with --store" in shown
    assert "reading" not in shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "splitplace.commands.shared.places.os.access", lambda _, mode: mode != os.W_OK | os.X_OK
        )
        assert _run("add", "colours.onnx", *more, "store") == 1
    shown = capsys.readouterr().err
    assert "cannot be written to: name another folder with --store" in shown
    assert "reading" not in shown


def test_preprocessing_is_recorded_named_and_shown(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = Image.new("RGB", (64, 16), (200, 0, 0))
    wide.paste((0, 0, 200), (24, 0, 40, 16))
    wide.save(user / "wide.png")
    command = ("add", user / "colours.onnx", "--labels", user / "labels.txt", "--accuracy", "0.5")
    flags = ("--output-kind", "logits", "--store", user / "store", "--preview", user / "wide.png")
    assert _run(*command, *flags) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "RGB, 0 to 1, stretch, bilinear (not recognised: values from 0 to 1 are taken" in said
    assert "what it sees of wide.png: colours-sees-wide.png (the picture was stretched" in said
    with Image.open(user / "colours-sees-wide.png") as seen:
        assert (seen.size, seen.getpixel((0, 8))) == ((16, 16), (200, 0, 0))

    assert _run(*command, *flags, "--crop", "1", "--white", "255", "--std", "2") == 0
    assert "as said by --std, --white, --crop" in capsys.readouterr().out.replace("\n", " ")
    with Image.open(user / "colours-sees-wide.png") as seen:
        assert seen.getpixel((0, 8)) == (0, 0, 200)
    pictures = ModelStore(user / "store").application("colours").pictures
    assert pictures is not None
    assert (pictures.fit, pictures.white, pictures.deviation) == ("crop", 255.0, (2.0, 2.0, 2.0))


def test_labels_come_from_the_file_where_it_names_them(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("add", user / "named.onnx", "--accuracy", "0.5", "--store", user / "store")
    model = _channel_means()
    onnx.save_model(model, user / "named.onnx")
    assert _run(*command) != 0
    assert "say them with --labels" in capsys.readouterr().err
    helper.set_model_props(
        model, {"author": "Ultralytics", "task": "classify", "names": "{0: 'r', 1: 'g', 2: 'b'}"}
    )
    onnx.save_model(model, user / "named.onnx")
    assert _run(*command, "--output-kind", "logits") == 0
    application = ModelStore(user / "store").application("named")
    assert application.labels == ("r", "g", "b")
    assert application.pictures is not None
    assert application.pictures.fit == "crop"
