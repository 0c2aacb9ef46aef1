"""Notices tasks whose outputs are overdue, from what was predicted of them. Pure: times are arguments.

A task is overdue when it has taken a certain multiple of its predicted time. The multiple is learnt for each
variant, so that in the long run about `SHARE` of its tasks are overdue, however wrong the predictions are
(Dean and Barroso, The tail at scale, 2013, let five of a hundred requests run twice). So a cluster in which
everything takes longer than predicted does not run everything twice.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

USUAL = 1.4
"""Multiple of the predicted time at which a task of an unknown variant is overdue."""
LEAST, MOST = 1.25, 4.0
"""Bounds of that multiple."""
EXTRA_MS = 20.0
"""Added to it, so that a short task is not overdue because of a late message."""
SHARE = 0.05
"""Share of the tasks that are overdue in the long run."""
STEP = 0.02
"""How fast the multiple changes."""
MAX_WATCHED = 4096
MAX_VARIANTS = 1024

ONLY = ""
"""Stands for the last stage where there is only one: a second run may group the stages otherwise."""


class Overdue(NamedTuple):
    """What is overdue of an attempt."""

    task: str
    attempt: int
    missing: Mapping[str, tuple[int, ...]]
    """Micro-batches whose outputs have not come, ascending, by last stage."""


@dataclass(slots=True)
class _Watched:
    """An attempt whose outputs are awaited."""

    attempt: int
    variant: tuple[str, str]
    missing: dict[str, set[int]]
    """Micro-batches whose outputs have not come, by last stage; none of them is empty."""
    due_ms: float = field(default=inf)
    """When it is overdue; infinite once that was told."""


class Lagging:
    """The attempts whose outputs are awaited."""

    def __init__(self) -> None:
        """Await nothing."""
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self._multiples: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._agenda: list[tuple[float, str]] = []

    def await_outputs(
        self,
        task: str,
        attempt: int,
        variant: tuple[str, str],
        *,
        micro_batches: int,
        branches: Iterable[str] = (ONLY,),
        expected_ms: float,
        now_ms: float,
    ) -> None:
        """Await the outputs of an attempt; an earlier attempt is forgotten.

        Args:
            task: its key.
            attempt: number of the attempt.
            variant: names of application and variant.
            micro_batches: how many outputs come of each branch.
            branches: names of the last stages, where there are several.
            expected_ms: predicted time until the last of them.
            now_ms: the present moment.
        """
        known = self._watched.get(task)
        if known is not None and known.attempt >= attempt:
            return
        due_ms = now_ms + self.multiple(variant) * expected_ms + EXTRA_MS
        missing = {branch: set(range(micro_batches)) for branch in branches}
        self._watched[task] = _Watched(attempt, variant, missing, due_ms)
        self._watched.move_to_end(task)
        heapq.heappush(self._agenda, (due_ms, task))
        while len(self._watched) > MAX_WATCHED:
            self._watched.popitem(last=False)
        if len(self._agenda) > 2 * MAX_WATCHED:
            self._agenda = [(each.due_ms, key) for key, each in self._watched.items() if each.due_ms < inf]
            heapq.heapify(self._agenda)

    def came(self, task: str, attempt: int, micro_batch: int, branch: str = ONLY) -> None:
        """Note an output."""
        watched = self._watched.get(task)
        if watched is None or watched.attempt != attempt or branch not in watched.missing:
            return
        watched.missing[branch].discard(micro_batch)
        if not watched.missing[branch]:
            del watched.missing[branch]
        if not watched.missing:
            del self._watched[task]
            self._learn(watched.variant, late=watched.due_ms == inf)

    def missing(self, task: str, attempt: int) -> Mapping[str, tuple[int, ...]]:
        """Return the micro-batches of an attempt whose outputs have not come, ascending, by last stage."""
        watched = self._watched.get(task)
        if watched is None or watched.attempt != attempt:
            return {}
        return {branch: tuple(sorted(numbers)) for branch, numbers in watched.missing.items()}

    def forget(self, task: str) -> None:
        """Await nothing of a task any more."""
        self._watched.pop(task, None)

    def multiple(self, variant: tuple[str, str]) -> float:
        """Return the multiple of its predicted time at which a task of a variant is overdue."""
        return self._multiples.get(variant, USUAL)

    @property
    def next_due_ms(self) -> float:
        """When `overdue` must be asked next; infinite while nothing is awaited."""
        while self._agenda and not self._is_current(*self._agenda[0]):
            heapq.heappop(self._agenda)
        return self._agenda[0][0] if self._agenda else inf

    def overdue(self, now_ms: float) -> list[Overdue]:
        """Return what is overdue now, each attempt once."""
        found = []
        while self.next_due_ms <= now_ms and self._agenda:
            _, task = heapq.heappop(self._agenda)
            watched = self._watched[task]
            watched.due_ms = inf
            found.append(Overdue(task, watched.attempt, self.missing(task, watched.attempt)))
        return found

    def _is_current(self, due_ms: float, task: str) -> bool:
        watched = self._watched.get(task)
        return watched is not None and watched.due_ms == due_ms

    def _learn(self, variant: tuple[str, str], *, late: bool) -> None:
        """Move the multiple towards the value that `SHARE` of the tasks exceed."""
        multiple = self.multiple(variant) + STEP * ((1 - SHARE) if late else -SHARE)
        self._multiples[variant] = min(MOST, max(LEAST, multiple))
        self._multiples.move_to_end(variant)
        if len(self._multiples) > MAX_VARIANTS:
            self._multiples.popitem(last=False)
