"""What an inspection found, as tables for a terminal."""

from itertools import accumulate

from rich.table import Table

from splitplace.workshop.cutting.inspection import Inspection
from splitplace.workshop.cutting.plan import CutPlan

_KILO, _MEGA = 1e3, 1e6


def size(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / _MEGA:.2f} MB" if count >= _MEGA else f"{count / _KILO:.1f} kB"


def points_table(inspection: Inspection) -> Table:
    """One line for each place to cut, with how much of the network lies before it."""
    table = Table(
        title=f"{inspection.name}: {len(inspection.points)} places where one tensor crosses", box=None
    )
    table.add_column("cut", justify="right")
    table.add_column("after", no_wrap=True)
    for heading in ("an image", "on the wire", "FLOPs before", "time before"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    flops = list(accumulate(segment.flops_per_image for segment in inspection.segments))
    times = list(accumulate(segment.milliseconds for segment in inspection.segments))
    for index, point in enumerate(inspection.points):
        table.add_row(
            str(index + 1),
            inspection.segments[index].label,
            size(point.bytes_per_image),
            size(point.sent_bytes_per_image),
            f"{_share(flops[index], flops[-1]):.1%}",
            f"{_share(times[index], times[-1]):.1%}",
            "cut" if index in inspection.cuts else "",
        )
    return table


def stages_table(inspection: Inspection) -> Table:
    """One line for each stage of the plan."""
    plan = inspection.plan
    table = Table(title=f"{inspection.name}: the best chain of {len(plan.stages)}", box=None)
    headings = ("stage", "segments", "ms", "send ms", "sent", "MFLOPs", "weights", "peak")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for number, stage in enumerate(plan.stages, start=1):
        sets_pace = max(stage.compute_ms, stage.send_ms) >= plan.pace_ms
        table.add_row(
            str(number),
            f"{stage.first_segment + 1}-{stage.last_segment + 1}",
            f"{stage.compute_ms:.3f}",
            f"{stage.send_ms:.3f}",
            size(stage.sent_bytes_per_image),
            f"{stage.flops_per_image / _MEGA:.2f}",
            size(stage.weight_bytes),
            size(stage.peak_memory_bytes),
            "slowest" if sets_pace else "",
        )
    return table


def verdict(plan: CutPlan) -> str:
    """How good the plan is, in a sentence."""
    return (
        f"An image every {plan.pace_ms:.3f} ms. The fastest chain of {len(plan.stages)} would take "
        f"{plan.least_pace_ms:.3f} ms; work that could be divided anywhere, with nothing to send, "
        f"{plan.ideal_pace_ms:.3f} ms. Peak memory is for micro-batches of {plan.micro_batch}."
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
