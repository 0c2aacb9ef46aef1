"""Looking into a network: tables, verdict and drawing."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import onnx
import pytest
from rich.console import Console

from splitplace.workshop.cutting.balance import Device, Target
from splitplace.workshop.cutting.inspection import Inspection, balance, describe, inspect
from splitplace.workshop.cutting.layer_split import cut
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.joining import greatest_difference
from splitplace.workshop.report.drawing import draw
from splitplace.workshop.report.tables import points_table, size, stages_table, verdict
from tests.support.small_networks import exported_small_network, random_images

SVG = "{http://www.w3.org/2000/svg}"


def by_flops(models: Sequence[onnx.ModelProto], micro_batch: int) -> list[float]:
    """Stands for a clock: a millisecond for a million FLOPs, and a little for every node."""
    graphs = [Graph(model) for model in models]
    return [graph.flops_per_image / 1e6 + len(graph.nodes) * 0.004 / micro_batch for graph in graphs]


@pytest.fixture(scope="module")
def whole() -> onnx.ModelProto:
    return exported_small_network()


@pytest.fixture(scope="module")
def found(whole: onnx.ModelProto) -> Inspection:
    target = Target((Device(slowdown=2.0),))
    return inspect(whole, name="small & fine", stages=3, target=target, micro_batch=4, measure=by_flops)


def text_of(renderable: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_segments_add_up_to_the_network(found: Inspection, whole: onnx.ModelProto) -> None:
    assert len(found.segments) == len(found.points) + 1
    assert sum(segment.flops_per_image for segment in found.segments) == Graph(whole).flops_per_image
    assert sum(len(segment.operators) for segment in found.segments) == len(Graph(whole).nodes)


def test_a_plan_says_what_its_stages_cost(found: Inspection, whole: onnx.ModelProto) -> None:
    plan = found.plan
    assert plan.least_pace_ms <= plan.pace_ms <= plan.least_pace_ms * 1.05
    assert plan.ideal_pace_ms <= plan.least_pace_ms
    assert plan.pace_ms == max(max(stage.compute_ms, stage.send_ms) for stage in plan.stages)
    total = sum(segment.milliseconds for segment in found.segments)
    assert sum(stage.compute_ms for stage in plan.stages) == pytest.approx(2 * total)
    for stage, fragment in zip(plan.stages, cut(whole, plan.tensors), strict=True):
        graph = Graph(fragment)
        assert (stage.flops_per_image, stage.weight_bytes) == (graph.flops_per_image, graph.weight_bytes)
        peak = graph.weight_bytes + 4 * graph.peak_activation_bytes_per_image
        assert (stage.output, stage.peak_memory_bytes) == (graph.output, peak)


def test_a_chain_is_compared_with_the_best_that_could_be(found: Inspection, whole: onnx.ModelProto) -> None:
    best = balance(found, cut(whole, found.plan.tensors), micro_batch=4, measure=by_flops)
    assert 1 <= best.ratio <= 1.05
    early = [point.tensor for point in found.points[:2]]
    lopsided = balance(found, cut(whole, early), micro_batch=4, measure=by_flops)
    assert lopsided.best_ms == best.best_ms
    assert lopsided.ratio > 1.5


def test_float16_between_stages_changes_the_logits_a_little_and_float32_does_not(
    found: Inspection, whole: onnx.ModelProto
) -> None:
    images = random_images(4)
    assert greatest_difference(whole, cut(whole, found.plan.tensors), images) <= 1e-4
    rounded = greatest_difference(whole, cut(whole, found.plan.tensors, "float16"), images)
    assert 0 < rounded < 0.01


def test_the_tables_name_every_cut_point_and_every_stage(found: Inspection) -> None:
    lines = text_of(points_table(found)).splitlines()
    assert sum(" cut " in line for line in lines[2:]) == 2
    assert len(lines) == len(found.points) + 2
    assert f"{found.points[3].bytes_per_image / 1000:.1f} kB" in lines[5]
    lines = text_of(stages_table(found)).splitlines()
    assert len(lines) == 3 + 2
    assert sum("slowest" in line for line in lines) == 1
    assert f"{found.plan.pace_ms:.3f} ms" in verdict(found.plan)


def test_the_drawing_has_a_line_for_each_cut_and_boxes_as_wide_as_their_work(found: Inspection) -> None:
    root = ET.fromstring(draw(found))
    cuts = [line for line in root.iter(f"{SVG}line") if line.get("class") == "cut"]
    assert len(cuts) == 2
    boxes = [float(box.get("width", 0)) for box in root.iter(f"{SVG}rect") if box.get("class") == "layer"]
    works = [segment.flops_per_image for segment in found.segments if segment.flops_per_image]
    assert len(boxes) == len(works)
    assert [box / max(boxes) for box in boxes] == pytest.approx(
        [max(work / max(works), min(boxes) / max(boxes)) for work in works], abs=0.01
    )
    words = " ".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert "small & fine in 3 stages" in words
    for stage in found.plan.stages[:-1]:
        assert f"{size(stage.sent_bytes_per_image)} on the wire" in words


def test_a_drawing_reads_nothing_from_elsewhere(found: Inspection, tmp_path: Path) -> None:
    (tmp_path / "drawing.svg").write_text(draw(found), "utf-8")
    text = (tmp_path / "drawing.svg").read_text("utf-8")
    assert "href" not in text
    assert "<script" not in text
    assert "<style" not in text


def test_equal_neighbours_are_counted() -> None:
    assert describe(["Relu", "Conv", "Conv", "BatchNormalization", "Conv"]) == "Relu, 2 Conv, BatchNorm, Conv"


@pytest.mark.parametrize(("count", "text"), [(0, "0.0 kB"), (1500, "1.5 kB"), (2_340_000, "2.34 MB")])
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert size(count) == text
