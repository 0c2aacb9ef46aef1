"""Progress of long work on standard error: a bar on a terminal, else a plain line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SHARE = 0.05
_LONGEST_SILENCE_S = 60.0
_SHORTEST_SILENCE_S = 10.0

Step = Callable[[str], None]
"""Report one more item, with a description."""


@contextmanager
def progress(total: int) -> Iterator[Step]:
    """Show on standard error how many of `total` items are done, inside the context."""
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = LinePacing(total, time.monotonic())
        yield lambda what: _print(lines.step(what, time.monotonic()))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda what: bar.update(task, advance=1, description=what)


@contextmanager
def telling(about: str) -> Iterator[Step]:
    """Say on standard error what is being done, inside the context.

    On a terminal it is one line with a clock, so a long step is seen to go on; else a line for each step.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what: _print(f"{about}: {what}")
        return
    with Progress(
        TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(about, total=None)
        yield lambda what: bar.update(task, description=f"{about}: {what}")


def _print(line: str | None) -> None:
    if line is not None:
        print(line, file=sys.stderr, flush=True)


@dataclass
class LinePacing:
    """Decide when a line is due: at each twentieth, each minute and the end, at least ten seconds apart.

    Attributes:
        total: number of items.
        began_s: start, on the clock that `step` gets.
        done: items so far.
    """

    total: int
    began_s: float
    done: int = 0
    _said: int = 0
    _said_s: float = 0.0

    def __post_init__(self) -> None:
        """Count silence from the start."""
        self._said_s = self.began_s

    def step(self, what: str, now_s: float) -> str | None:
        """Count one more item. Return a line if one is due.

        Args:
            what: description of the item.
            now_s: now, in seconds on any clock.
        """
        self.done += 1
        silence_s = now_s - self._said_s
        due = self.done - self._said >= _SHARE * self.total or silence_s >= _LONGEST_SILENCE_S
        if self.done < self.total and not (due and silence_s >= _SHORTEST_SILENCE_S):
            return None
        self._said, self._said_s = self.done, now_s
        elapsed_s = now_s - self.began_s
        left_s = elapsed_s / self.done * (self.total - self.done)
        share = self.done / self.total
        return (
            f"{what}: {self.done}/{self.total} ({share:.0%}), {elapsed_s:.0f} s, about {left_s:.0f} s to go"
        )
