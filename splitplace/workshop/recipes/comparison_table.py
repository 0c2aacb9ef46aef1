"""What a comparison of semantic splits found, as a table. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from splitplace.messages.application import Fragment

ALLOWANCE = 0.15
"""By how much of the whole network's time the slowest of k branches may exceed 1/k."""
BATCH = 16


@dataclass(frozen=True)
class Row:
    """One network: whole, or its branches side by side."""

    name: str
    branches: int
    accuracy: float
    wrong_branch: float
    """Share of images for which a class of a branch won that does not own the right one."""
    fragments: tuple[Fragment, ...]

    @property
    def ms(self) -> float:
        """Of the slowest branch, an image in a call of `BATCH`: with a node for each, nobody waits longer."""
        return max(
            fragment.milliseconds_per_image + fragment.milliseconds_per_call / BATCH
            for fragment in self.fragments
        )


def table(rows: Sequence[Row], title: str) -> Table:
    """One line a network; the first is the whole one, to which the others are compared."""
    whole = rows[0]
    made = Table(title=title, box=None, padding=(0, 1, 0, 0))
    for column in (
        *("network", "accuracy", "wrong branch", "MFLOPs", "of whole", "weights kB", "peak kB"),
        *("ms/image", "of whole", "allowed"),
    ):
        made.add_column(column, justify="left" if column == "network" else "right", no_wrap=True)
    for row in rows:
        flops = max(fragment.flops_per_image for fragment in row.fragments)
        whole_flops = whole.fragments[0].flops_per_image
        allowed = 1 / row.branches + ALLOWANCE if row.branches > 1 else 1.0
        made.add_row(
            row.name,
            f"{row.accuracy:.4f}",
            f"{row.wrong_branch:.4f}" if row.branches > 1 else "",
            f"{flops / 1e6:.1f}",
            f"{flops / whole_flops:.0%}",
            f"{max(fragment.weight_bytes for fragment in row.fragments) / 1e3:.0f}",
            f"{max(fragment.peak_memory_bytes for fragment in row.fragments) / 1e3:.0f}",
            f"{row.ms:.3f}",
            f"{row.ms / whole.ms:.0%}",
            f"{allowed:.0%}",
        )
    return made
