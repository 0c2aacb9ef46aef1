"""Looking into a network: tables, verdict and drawing."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import onnx
import pytest
from rich.console import Console

from splitplace.workshop.cutting.balance import Device, Target
from splitplace.workshop.cutting.layer_split import CutError
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.chain import MeasuredNetwork, measured
from splitplace.workshop.pieces.inspection import Inspection, balance, describe, inspect
from splitplace.workshop.report.drawing import draw
from splitplace.workshop.report.tables import places_table, size, stages_table, verdict
from splitplace.workshop.user_networks.differences import chain_differences
from tests.support.branching_networks import detector, unet
from tests.support.small_networks import exported_small_network

SVG = "{http://www.w3.org/2000/svg}"


def by_flops(model: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock: a millisecond for a million FLOPs, and a little for every node."""
    graph = Graph(model)
    counts = [end - first for first, end in pairwise((0, *ends, len(graph.nodes)))]
    return [
        flops / 1e6 + count * 0.001 for flops, count in zip(graph.flops_between(ends), counts, strict=True)
    ]


def inspected(network: MeasuredNetwork, stages: int = 3) -> Inspection:
    target = Target((Device(slowdown=2.0, link_bytes_per_ms=50_000.0),))
    return inspect(network, name="small & fine", stages=stages, target=target, micro_batch=4)


@pytest.fixture(scope="module")
def whole() -> MeasuredNetwork:
    return measured(exported_small_network(), by_flops)


@pytest.fixture(scope="module")
def found(whole: MeasuredNetwork) -> Inspection:
    return inspected(whole)


@pytest.fixture(
    scope="module", params=[unet, partial(detector, several_outputs=True)], ids=["unet", "detector"]
)
def branching(request: pytest.FixtureRequest) -> MeasuredNetwork:
    """A network in which several tensors cross at almost every place."""
    return measured(request.param(), by_flops)


def text_of(renderable: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_segments_add_up_to_the_network(found: Inspection, whole: MeasuredNetwork) -> None:
    graph = Graph(whole.model)
    assert len(found.segments) == len(found.places) + 1
    assert sum(segment.flops_per_image for segment in found.segments) == graph.flops_per_image
    assert sum(len(segment.operators) for segment in found.segments) == len(graph.nodes)


def test_a_plan_says_what_its_stages_cost(found: Inspection, whole: MeasuredNetwork) -> None:
    plan = found.plan
    assert plan.least_pace_ms <= plan.pace_ms <= plan.least_pace_ms * 1.05
    assert plan.ideal_pace_ms <= plan.least_pace_ms
    assert plan.pace_ms == max(max(stage.compute_ms, stage.send_ms) for stage in plan.stages)
    total = sum(segment.milliseconds for segment in found.segments)
    assert sum(stage.compute_ms for stage in plan.stages) == pytest.approx(2 * total)
    bounds = pairwise((0, *(cut + 1 for cut in plan.cuts), len(found.segments)))
    for stage, (first, end) in zip(plan.stages, bounds, strict=True):
        segments = found.segments[first:end]
        assert stage.flops_per_image == sum(segment.flops_per_image for segment in segments)
        assert stage.weight_bytes == sum(segment.weight_bytes for segment in segments)
        assert stage.peak_memory_bytes > stage.weight_bytes
    assert [stage.outputs for stage in plan.stages[:-1]] == [whole.places[cut].tensors for cut in plan.cuts]
    assert plan.stages[-1].outputs == Graph(whole.model).outputs


def test_a_network_with_too_few_places_is_refused(whole: MeasuredNetwork) -> None:
    count = len(whole.places)
    with pytest.raises(CutError, match=f"{count} places to cut, too few for {count + 2} stages"):
        inspected(whole, count + 2)


def test_several_tensors_may_cross_between_planned_stages(branching: MeasuredNetwork) -> None:
    found = inspected(branching, 4)
    assert len(found.plan.stages) == 4
    assert max(len(tensors) for tensors in found.plan.tensors) > 1
    for stage, place in zip(found.plan.stages, found.plan.cuts, strict=False):
        assert stage.outputs == branching.places[place].tensors
        assert stage.sent_bytes_per_image == branching.places[place].sent_bytes_per_image
    lines = text_of(places_table(found)).splitlines()
    assert any(" cut " in line and f" {len(found.plan.tensors[0])} " in line for line in lines)
    words = " ".join(text.text or "" for text in ET.fromstring(draw(found)).iter(f"{SVG}text"))
    assert re.search(r"cut: \d tensors, ", words)


def test_a_memory_limit_moves_the_cuts(branching: MeasuredNetwork) -> None:
    free = inspected(branching).plan
    most = max(stage.peak_memory_bytes for stage in free.stages)
    limited = Target((Device(slowdown=2.0, memory_bytes=most - 1),))
    plan = inspect(branching, name="", stages=4, target=limited, micro_batch=4).plan
    assert max(stage.peak_memory_bytes for stage in plan.stages) < most


def test_a_chain_is_compared_with_the_best_that_could_be(found: Inspection, whole: MeasuredNetwork) -> None:
    best = balance(whole, found.plan.cuts)
    assert 1 <= best.ratio <= 1.05
    lopsided = balance(whole, (0, 1))
    assert lopsided.best_ms == best.best_ms
    assert lopsided.ratio > 1.5


def test_float16_between_stages_changes_the_outputs_a_little_and_float32_does_not(
    found: Inspection, whole: MeasuredNetwork
) -> None:
    differences = chain_differences(whole, found.plan.cuts, 4)
    assert differences["float32"] <= 1e-4
    assert 0 < differences["float16"] < 0.01


def test_bundles_of_several_tensors_and_outputs_are_compared_too(branching: MeasuredNetwork) -> None:
    differences = chain_differences(branching, inspected(branching).plan.cuts, 2)
    assert differences["float32"] <= 1e-4
    assert 0 < differences["float16"] < 0.1


def test_the_tables_name_every_place_to_cut_and_every_stage(found: Inspection) -> None:
    lines = text_of(places_table(found)).splitlines()
    assert sum(" cut " in line for line in lines[2:]) == 2
    assert len(lines) == len(found.places) + 2
    assert f"{found.places[3].bytes_per_image / 1000:.1f} kB" in lines[5]
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
