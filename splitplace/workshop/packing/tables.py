"""What was measured of an application, as tables. Needs no torch."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from splitplace.messages.application import Application, Fragment, Variant
from splitplace.workshop.packing.variants import Measured

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
    """One line a stage."""
    title = f"{application.name}: {application.title}"
    table = Table(*COLUMNS, title=title, box=None, padding=(0, 1, 0, 0))
    for row in stage_rows(application, results):
        table.add_row(*row)
    return table


def profile_table(stored: Application, now: Application) -> Table:
    """What each fragment takes here and now, beside what is stored."""
    title = f"{now.name}: benchmark score {now.reference_score} here, {stored.reference_score} stored"
    table = Table("variant", "stage", title=title, box=None, padding=(0, 1, 0, 0))
    for heading in ("ms/image", "stored", "ms/call", "stored"):
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
            )
    return table


def stage_rows(application: Application, results: Sequence[Measured]) -> Iterable[tuple[str, ...]]:
    """Cells below `COLUMNS`: one row a stage, the variant named in its first."""
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
    """Lines of a table in Markdown."""
    table = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(row)} |" for row in table]
