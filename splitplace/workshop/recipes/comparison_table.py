"""The results of a comparison of semantic splits as a table. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from splitplace.messages.application import Fragment

ALLOWANCE = 0.15
"""Share of the whole network's time by which the slowest of k branches may exceed 1/k."""
BATCH = 16


@dataclass(frozen=True)
class Row:
    """One network: the whole, or branches side by side."""

    name: str
    branches: int
    accuracy: float
    wrong_branch: float
    """Share of images for which the winning class belongs to another branch than the right class."""
    fragments: tuple[Fragment, ...]

    @property
    def ms(self) -> float:
        """Time per image of the slowest branch, in calls of `BATCH` images, in ms."""
        return max(
            fragment.milliseconds_per_image + fragment.milliseconds_per_call / BATCH
            for fragment in self.fragments
        )


def table(rows: Sequence[Row], title: str) -> Table:
    """Return a table with one line per network. The first is the whole network, the baseline."""
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
