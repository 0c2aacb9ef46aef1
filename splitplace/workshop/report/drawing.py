"""Draw a network as a chain of layers with the planned cuts, as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from splitplace.workshop.pieces.inspection import Inspection, Segment, describe
from splitplace.workshop.pieces.plan import PlannedStage
from splitplace.workshop.report.tables import size

_WIDTH: Final = 980
_TOP: Final = 64
_AXIS: Final = 400
_WIDEST: Final = 300
_NARROWEST: Final = 6
_BOX: Final = 20
_GAP: Final = 18
"""Space between two boxes, with the number of bytes."""
_CUT_GAP: Final = 44
_LINE: Final = 15
_LABEL_X: Final = 575
_MAX_LETTERS: Final = 60
_STAGE_COLOURS: Final = ("#3b6ea8", "#4f8f5b", "#a8743b", "#7d5aa6", "#3a9099", "#a04f6d")
_CUT_COLOUR: Final = "#c02626"
_PALE: Final = "0.10"


@dataclass(frozen=True)
class _Row:
    """One box: a segment with FLOPs, merged with neighbours that have none."""

    segments: tuple[Segment, ...]
    bytes_after: int
    """Size of what crosses after it for one image; 0 at the end."""

    @property
    def flops(self) -> int:
        return sum(segment.flops_per_image for segment in self.segments)

    @property
    def label(self) -> str:
        text = describe([kind for segment in self.segments for kind in segment.operators])
        return text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 1]}…"


def draw(inspection: Inspection) -> str:
    """Draw the chain from top to bottom, with the width of boxes by FLOPs and the bytes that cross each cut.

    Returns:
        A self-contained SVG document: it refers to no other files, fonts or scripts.
    """
    plan = inspection.plan
    rows = [_rows(inspection, stage) for stage in plan.stages]
    heights = [len(group) * (_BOX + _GAP) - _GAP for group in rows]
    height = _TOP + sum(heights) + _CUT_GAP * (len(rows) - 1) + 24
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    _box(svg, (0, 0), (_WIDTH, height), {"fill": "white"})
    _text(
        svg,
        16,
        24,
        f"{inspection.name} in {len(plan.stages)} stages",
        {"font-size": "16", "font-weight": "bold"},
    )
    summary = f"an image every {plan.pace_ms:.2f} ms; at best {plan.least_pace_ms:.2f} ms"
    _text(svg, 16, 42, f"{summary}; boxes are as wide as their FLOPs", {"fill": "#555"})
    most = max((row.flops for group in rows for row in group), default=0) or 1
    top = _TOP
    for index, (stage, group, tall) in enumerate(zip(plan.stages, rows, heights, strict=True)):
        colour = _STAGE_COLOURS[index % len(_STAGE_COLOURS)]
        _box(svg, (8, top - 6), (_WIDTH - 16, tall + 12), {"fill": colour, "fill-opacity": _PALE})
        _describe_stage(svg, top, index + 1, stage)
        _draw_rows(svg, top, group, most, colour)
        top += tall
        if index + 1 < len(plan.stages):
            crossing = (
                f"cut: {_tensors(stage)}{size(group[-1].bytes_after)} an image, "
                f"{size(stage.sent_bytes_per_image)} on the wire"
            )
            _draw_cut(svg, top + _CUT_GAP // 2, crossing)
            top += _CUT_GAP
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _tensors(stage: PlannedStage) -> str:
    return "" if len(stage.outputs) == 1 else f"{len(stage.outputs)} tensors, "


def _rows(inspection: Inspection, stage: PlannedStage) -> list[_Row]:
    """Return the boxes of a stage. Segments without FLOPs join the previous box, or the first one."""
    groups: list[list[int]] = [[]]
    for index in range(stage.first_segment, stage.last_segment + 1):
        has_work = inspection.segments[index].flops_per_image > 0
        if has_work and any(inspection.segments[other].flops_per_image for other in groups[-1]):
            groups.append([])
        groups[-1].append(index)
    sizes = [*(place.bytes_per_image for place in inspection.places), 0]
    return [_Row(tuple(inspection.segments[index] for index in group), sizes[group[-1]]) for group in groups]


def _describe_stage(svg: ET.Element, top: int, number: int, stage: PlannedStage) -> None:
    lines = (
        f"stage {number}: {stage.compute_ms:.2f} ms, sends {stage.send_ms:.2f} ms",
        f"{stage.flops_per_image / 1e6:.1f} MFLOPs, weights {size(stage.weight_bytes)}",
        f"peak {size(stage.peak_memory_bytes)}",
    )
    for index, line in enumerate(lines):
        _text(svg, 16, top + 10 + index * _LINE, line, {"font-weight": "normal" if index else "bold"})


def _draw_rows(svg: ET.Element, top: int, rows: Sequence[_Row], most: int, colour: str) -> None:
    for index, row in enumerate(rows):
        y = top + index * (_BOX + _GAP)
        wide = max(_NARROWEST, round(_WIDEST * row.flops / most))
        _box(svg, (_AXIS - wide / 2, y), (wide, _BOX), {"fill": colour, "rx": "3", "class": "layer"})
        _text(svg, _LABEL_X, y + 14, row.label, {"font-size": "11"})
        if index + 1 < len(rows):
            _arrow(svg, y + _BOX, y + _BOX + _GAP)
            _text(svg, _AXIS + 8, y + _BOX + 13, size(row.bytes_after), {"fill": "#777", "font-size": "10"})


def _draw_cut(svg: ET.Element, y: int, text: str) -> None:
    _arrow(svg, y - _CUT_GAP // 2, y + _CUT_GAP // 2)
    line = {"x1": "8", "x2": str(_WIDTH - 8), "y1": str(y), "y2": str(y), "class": "cut"}
    ET.SubElement(svg, "line", line | {"stroke": _CUT_COLOUR, "stroke-width": "2", "stroke-dasharray": "7 4"})
    _text(svg, _AXIS + 8, y - 5, text, {"fill": _CUT_COLOUR, "font-weight": "bold"})


def _arrow(svg: ET.Element, start: int, end: int) -> None:
    ends = {"x1": str(_AXIS), "x2": str(_AXIS), "y1": str(start), "y2": str(end)}
    ET.SubElement(svg, "line", ends | {"stroke": "#999", "stroke-width": "1.5"})


def _box(
    svg: ET.Element, corner: tuple[float, float], sides: tuple[float, float], style: dict[str, str]
) -> None:
    names = ("x", "y", "width", "height")
    place = {name: f"{value:g}" for name, value in zip(names, (*corner, *sides), strict=True)}
    ET.SubElement(svg, "rect", place | style)


def _text(svg: ET.Element, x: float, y: float, text: str, style: dict[str, str]) -> None:
    ET.SubElement(svg, "text", {"x": f"{x:g}", "y": f"{y:g}"} | style).text = text
