"""Tables for a terminal: an application's measurements, and what an inspection found. Needs no torch."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from rich.table import Table

from splitplace.messages.application import Application, Fragment, Variant
from splitplace.policies.memory import described_bytes
from splitplace.workshop.packing.evaluation import Measured
from splitplace.workshop.pieces.inspection import Inspection
from splitplace.workshop.pieces.plan import CutPlan

_KILO, _MEGA = 1e3, 1e6
COLUMNS = (
    "variant",
    "accuracy",
    "diff",
    "stage",
    "ms/image",
    "ms/call",
    "MFLOPs",
    "weights kB",
    "peak kB",
)


def variants_table(application: Application, results: Sequence[Measured]) -> Table:
    """Return a table with one line per stage."""
    title = f"{application.name}: {application.title}"
    table = Table(*COLUMNS, title=title, box=None, padding=(0, 1, 0, 0))
    for row in stage_rows(application, results):
        table.add_row(*row)
    return table


def profile_table(stored: Application, now: Application) -> Table:
    """Return a table of each fragment's times and memory on this machine, beside the stored ones."""
    title = f"{now.name}: benchmark score {now.reference_score} here, {stored.reference_score} stored"
    table = Table("variant", "stage", title=title, box=None, padding=(0, 1, 0, 0))
    for heading in ("ms/image", "stored", "ms/call", "stored", "memory", "stored"):
        table.add_column(heading, justify="right")
    for variant in now.variants:
        for (name, fragment), (_, before) in zip(
            _stages(now, variant), _stages(stored, variant), strict=True
        ):
            table.add_row(
                variant.name,
                name,
                f"{fragment.milliseconds_per_image:.3f}",
                f"{before.milliseconds_per_image:.3f}",
                f"{fragment.milliseconds_per_call:.3f}",
                f"{before.milliseconds_per_call:.3f}",
                size(described_bytes(fragment)),
                size(described_bytes(before)),
            )
    return table


def stage_rows(application: Application, results: Sequence[Measured]) -> Iterable[tuple[str, ...]]:
    """Yield the cells below `COLUMNS`: one row per stage, with the variant named in its first row."""
    for variant, result in zip(application.variants, results, strict=True):
        for index, (name, fragment) in enumerate(_stages(application, variant)):
            head = (variant.name, f"{result.accuracy:.4f}", f"{result.difference_from_whole:.1e}")
            yield (
                *(head if index == 0 else ("", "", "")),
                name,
                f"{fragment.milliseconds_per_image:.3f}",
                f"{fragment.milliseconds_per_call:.3f}",
                f"{fragment.flops_per_image / 1e6:.1f}",
                f"{fragment.weight_bytes / 1000:.0f}",
                f"{fragment.peak_memory_bytes / 1000:.0f}",
            )


def _stages(application: Application, variant: Variant) -> Iterable[tuple[str, Fragment]]:
    return ((stage.name, application.fragment(stage.fragment)) for stage in variant.stages)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    table = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(row)} |" for row in table]


def size(count: float) -> str:
    """Format a number of bytes."""
    return f"{count / _MEGA:.2f} MB" if count >= _MEGA else f"{count / _KILO:.1f} kB"


def pieces_table(inspection: Inspection) -> Table:
    """Return a table with one line per piece."""
    chains = {piece.chain for piece in inspection.pieces}
    title = f"{inspection.name}: {len(inspection.pieces)} pieces of {len(chains)} networks"
    table = Table(
        title=title if len(chains) > 1 else f"{inspection.name}: {len(inspection.pieces)} pieces", box=None
    )
    table.add_column("network", no_wrap=True)
    for heading in ("piece", "ms", "weights", "memory", "hands on"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("cut here by")
    for piece in inspection.pieces:
        table.add_row(
            piece.chain if piece.number == 1 else "",
            str(piece.number),
            f"{piece.milliseconds:.3f}",
            size(piece.weight_bytes),
            size(piece.memory_bytes),
            size(piece.crossing_bytes),
            ", ".join(piece.cut_by),
        )
    return table


def memory_table(inspection: Inspection) -> Table:
    """Return a table of the memory that a node needs for each stage in the store."""
    table = Table(title=f"{inspection.name}: memory of a node for each stage", box=None)
    for heading in ("variant", "stage"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "least budget", "loaded and running"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in inspection.stored:
        sizes = map(size, (each.weight_bytes, each.budget_bytes, each.private_bytes))
        table.add_row(each.variant, each.stage, *sizes, "measured" if each.is_measured else "reckoned")
    return table


def places_table(inspection: Inspection) -> Table:
    """Return a table of the places to cut, with the share of FLOPs and time before each.

    Marked are places where one piece ends and the next begins, and where the plan cuts; in brackets where
    that is within a piece. Without known pieces, only the cuts are marked.
    """
    first = inspection.pieces[0].chain if inspection.pieces else ""
    bounds = {frozenset(piece.crossing) for piece in inspection.pieces if piece.chain == first}
    title = f"{inspection.name}: {len(inspection.places)} places to cut"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))
    table.add_column("cut", justify="right", no_wrap=True, min_width=3)
    table.add_column("", no_wrap=True, min_width=5)
    table.add_column("after", no_wrap=True, max_width=24)
    for heading in ("tensors", "an image", "on wire", "FLOPs", "time"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=6)
    flops = list(accumulate(segment.flops_per_image for segment in inspection.segments))
    times = list(accumulate(segment.milliseconds for segment in inspection.segments))
    for index, place in enumerate(inspection.places):
        table.add_row(
            str(index + 1),
            _mark(
                is_cut=index in inspection.plan.cuts,
                is_bound=frozenset(place.tensors) in bounds,
                has_pieces=bool(inspection.pieces),
            ),
            inspection.segments[index].label,
            str(len(place.points)),
            size(place.bytes_per_image),
            size(place.sent_bytes_per_image),
            f"{_share(flops[index], flops[-1]):.1%}",
            f"{_share(times[index], times[-1]):.1%}",
        )
    return table


def _mark(*, is_cut: bool, is_bound: bool, has_pieces: bool) -> str:
    if is_cut:
        return "cut" if is_bound or not has_pieces else "(cut)"
    return "piece" if is_bound else ""


def stages_table(inspection: Inspection) -> Table:
    """Return a table with one line per stage of the plan."""
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
    """Say in a few sentences how good the plan is."""
    return (
        f"An image every {plan.pace_ms:.3f} ms. The fastest chain of {len(plan.stages)} would take "
        f"{plan.least_pace_ms:.3f} ms. If the work could be divided anywhere, with nothing to send, it would "
        f"take {plan.ideal_pace_ms:.3f} ms. Peak memory is for micro-batches of {plan.micro_batch}."
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
