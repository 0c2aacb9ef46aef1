"""The page about the store: what it says and draws, and how."""

import base64
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop import report
from splitplace.workshop.cutting.layer_split import cut_points
from splitplace.workshop.datasets import DatasetError
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.loaded import stage_model
from splitplace.workshop.report.cuts import DiagramError, cut_diagrams
from splitplace.workshop.report.figures import confusion_matrix, group_accuracies, trade_off
from splitplace.workshop.report.groups import GroupConfusion, group_confusion, pictures_of
from splitplace.workshop.report.page import Chapter, report_page
from splitplace.workshop.report.times import BATCH, times_of
from tests.support.chains import contents, cut_at, named, run_of
from tests.support.commands import exit_code
from tests.support.examples import chain, fragment, star, three_ways
from tests.support.small_networks import exported_small_network

SVG = "{http://www.w3.org/2000/svg}"
COUNTED = GroupConfusion("semantic", ("left", "right"), np.array([[8, 2], [0, 10]]), (0.7, 1.0), (0.8, 0.9))


def by_flops(model: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock."""
    return [flops / 1e6 + 0.001 for flops in Graph(model).flops_between(ends)]


def images_of(page: str) -> list[ET.Element]:
    contents = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [ET.fromstring(base64.b64decode(content)) for content in contents]


def test_a_chain_takes_as_long_as_its_stages_together_and_a_star_as_its_slowest() -> None:
    application = three_ways(image_ms=3.0, call_ms=0.4, micro_batch=4)
    whole, layer, semantic = (times_of(application, variant) for variant in application.variants)
    assert whole.path_ms == pytest.approx(3.1)
    assert layer.path_ms == pytest.approx(3.3)
    assert layer.slowest_stage_ms == pytest.approx(1.1)
    assert semantic.path_ms == semantic.slowest_stage_ms == pytest.approx(0.7)


def test_the_answer_is_predicted_for_boards_six_times_slower_than_the_reference() -> None:
    application = three_ways(image_ms=10.0)
    whole = times_of(application, application.variant("whole"))
    computing = 6 * 10.0 * BATCH
    assert computing < whole.answer_ms < 1.1 * computing


def test_a_branch_that_wins_for_a_class_of_another_is_counted_there() -> None:
    variant = star("semantic", [fragment("a"), fragment("b")])
    labels = np.array([0, 0, 0, 1])
    logits = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    found = group_confusion(variant, logits, logits[::-1], labels)
    assert found.won.tolist() == [[2, 1], [0, 1]]
    assert found.wrong_branch == pytest.approx(0.25)
    assert found.right == pytest.approx((2 / 3, 1.0))
    assert found.whole_right == pytest.approx((1 / 3, 0.0))


def test_a_wrong_answer_of_the_right_branch_is_no_confusion_of_branches() -> None:
    stages = (
        Stage(name="a", fragment="a" * 64, source="input", classes=(0, 2)),
        Stage(name="b", fragment="b" * 64, source="input", classes=(1,)),
    )
    variant = Variant(
        name="semantic", kind="semantic", stages=stages, micro_batch=1, accuracy=0.5, accuracy_images=1
    )
    found = group_confusion(variant, np.array([[1, 0, 2]], np.float32), None, np.array([0]))
    assert found.won.tolist() == [[1, 0], [0, 0]]
    assert found.right == (0.0, 0.0)
    assert found.whole_right == ()
    assert found.wrong_branch == 0.0


def test_every_variant_is_a_point_in_both_panels_of_its_application() -> None:
    application = three_ways()
    other = three_ways().model_copy(update={"name": "other"})
    root = ET.fromstring(trade_off([application, other]))
    panels = [group for group in root.iter(f"{SVG}g") if re.fullmatch(r"axes_\d+", group.get("id", ""))]
    assert len(panels) == 4
    for panel in panels:
        points = [
            use
            for line in panel.findall(f"{SVG}g")
            if line.get("id", "").startswith("line2d_") and line.find(f".//{SVG}use") is not None
            for use in line.iter(f"{SVG}use")
        ]
        assert len(points) == len(application.variants)


@pytest.mark.parametrize("picture", [group_accuracies, confusion_matrix])
def test_a_picture_of_the_same_numbers_is_the_same_file(picture: Callable[[GroupConfusion], str]) -> None:
    assert picture(COUNTED) == picture(COUNTED)
    assert picture(COUNTED) != picture(replace(COUNTED, right=(0.6, 1.0), won=np.array([[7, 3], [0, 10]])))


def test_the_page_shows_every_fragment_and_loads_nothing_from_elsewhere() -> None:
    application = three_ways()
    page = report_page([Chapter(application, {"layer": "<svg/>"}, [COUNTED], ["a note"])], "command")
    names = [f"{variant.name}/{stage.name}" for variant in application.variants for stage in variant.stages]
    assert [name for name in names if f"<td>{name}</td>" not in page] == []
    assert len(images_of(page)) == 4
    assert "a note" in page
    assert "For 10.00% of them, a" in page
    assert not re.search(r'(src|href)="(?!data:)|<script|@import|url\(', page)


def test_what_a_manifest_says_cannot_become_markup() -> None:
    application = three_ways().model_copy(
        update={"title": "<script>alert(1)</script>", "labels": ("<b>", "&yes")}
    )
    page = report_page([Chapter(application)], "report '<x>'")
    assert "<script" not in page
    assert "<b>" not in page
    assert "<td>&lt;b&gt;</td>" in page
    assert "&lt;x&gt;" in page


def test_an_accuracy_that_nobody_measured_is_called_stated() -> None:
    application = three_ways()
    first = application.variants[0].model_copy(update={"accuracy_images": 0})
    page = report_page(
        [Chapter(application.model_copy(update={"variants": (first, *application.variants[1:])}))], "command"
    )
    assert page.count("90.00% (stated)") == 1
    assert page.count("<td>90.00%</td>") == 1


@pytest.fixture
def cut_store(tmp_path: Path) -> tuple[ModelStore, Application]:
    """A whole network and a chain of two that is cut from it, though not at the best place."""
    whole = exported_small_network()
    cut = cut_at(whole, cut_points(whole)[0].tensor)
    network = named("whole", cut)
    fragments = [run_of(network, *run) for run in ((0, 2), (0, 1), (1, 2))]
    variants = [
        Variant.model_validate(_with_classes(variant, 10))
        for variant in (chain("whole", fragments[:1]), chain("layer", fragments[1:]))
    ]
    application = Application(
        name="small",
        title="Small",
        input=fragments[0].input,
        labels=tuple("0123456789"),
        default_deadline_ms=100.0,
        reference_score=10.0,
        variants=tuple(variants),
        fragments=tuple(fragments),
        chains=(network,),
    )
    store = ModelStore(tmp_path / "store")
    store.save(application, contents(cut))
    return store, application


def _with_classes(variant: Variant, classes: int) -> dict[str, object]:
    last = variant.stages[-1].model_copy(update={"classes": tuple(range(classes))})
    return variant.model_dump() | {"stages": (*variant.stages[:-1], last)}


def test_a_drawing_shows_the_cut_that_the_store_holds(cut_store: tuple[ModelStore, Application]) -> None:
    store, application = cut_store
    ((name, svg),) = cut_diagrams(application, partial(stage_model, store, application), by_flops)
    drawing = ET.fromstring(svg)
    assert name == "layer"
    assert [line.get("class") for line in drawing.iter(f"{SVG}line")].count("cut") == 1
    texts = [text.text or "" for text in drawing.iter(f"{SVG}text")]
    assert "small, layer in 2 stages" in texts
    pace = re.search(r"every ([\d.]+) ms; at best ([\d.]+) ms", " ".join(texts))
    assert pace is not None
    assert float(pace[1]) > float(pace[2])


def test_a_chain_of_another_network_is_not_drawn(cut_store: tuple[ModelStore, Application]) -> None:
    store, application = cut_store
    front = application.fragment(application.variant("layer").stages[0].fragment)
    (crossing,) = application.stage_of(front).outputs

    def other_network(fragment: Fragment) -> onnx.ModelProto:
        model = stage_model(store, application, fragment)
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["elsewhere" if name == crossing.name else name for name in names]
        return model

    with pytest.raises(DiagramError, match="small/layer was not cut from the network in small/whole"):
        list(cut_diagrams(application, other_network, by_flops))


def test_pictures_come_from_the_first_folder_that_holds_some(small_mnist: Path, tmp_path: Path) -> None:
    application = ModelStore(SHIPPED_STORE).application("mnist")
    assert len(pictures_of(application, [tmp_path, small_mnist])) == 100
    with pytest.raises(DatasetError, match="does not hold mnist"):
        pictures_of(application, [tmp_path])


def run(*arguments: object) -> int:
    return exit_code("models", "report", *arguments)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.workshop.pieces.times.ROUNDS", 1)


@pytest.mark.usefixtures("_quick")
def test_the_command_writes_a_page_of_the_shipped_digits(small_mnist: Path, tmp_path: Path) -> None:
    assert run("mnist", "--out", tmp_path / "new", "--data", small_mnist) == 0
    page = (tmp_path / "new" / "index.html").read_text("utf-8")
    assert "Counted for this page on 100 test pictures" in page
    assert "Cuts of layer" in page
    assert len(images_of(page)) == 4


@pytest.mark.usefixtures("_quick")
def test_a_data_folder_without_the_pictures_is_said_and_the_page_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mnist", "--out", tmp_path, "--data", tmp_path) == 0
    assert "was not counted" in capsys.readouterr().out
    assert "was not counted" in (tmp_path / "index.html").read_text("utf-8")


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("splitplace.workshop.report.page", "splitplace.workshop.report.figures"):
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(report, module.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("mnist", "--out", tmp_path) == 1
    assert (
        "needs matplotlib: install SplitPlace again with the extra 'experiments'" in capsys.readouterr().err
    )


def test_an_unknown_application_and_an_empty_store_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("unheard-of", "--store", tmp_path) == 1
    assert "unheard-of" in capsys.readouterr().err
    assert run("--store", tmp_path, "--out", tmp_path) == 1
    assert "holds no application" in capsys.readouterr().err
