"""How decisions did: variants over time, predictions beside outcomes, promises kept. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from splitplace.commands.shared.task_record import TaskRecord
from splitplace.messages.task import TaskFinished

BINS = 10
MOST_POINTS = 200
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Point:
    """A task: what was predicted, what it took, in ms."""

    task: str
    variant: str
    predicted_ms: float
    actual_ms: float
    on_time: bool


@dataclass(frozen=True, slots=True)
class PromiseBin:
    """Tasks that were promised about the same probability of an answer in time."""

    promised: float
    """Mean of what was promised."""
    kept: float
    """Share that was answered in time."""
    tasks: int


@dataclass(frozen=True, slots=True)
class Shares:
    """Decisions of one minute."""

    minute: int
    """Since 1970."""
    variants: dict[str, int]
    """Tasks by variant; `refused` for those without one."""


@dataclass(frozen=True, slots=True)
class DecisionsOverTime:
    """The last tasks, as far as the dashboard keeps them."""

    tasks: int
    minutes: tuple[Shares, ...]
    points: tuple[Point, ...]
    promises: tuple[PromiseBin, ...]


def over_time(records: Iterable[TaskRecord]) -> DecisionsOverTime:
    """Return how the decisions of some tasks did."""
    ended = [record for record in records if record.finished is not None]
    minutes: dict[int, dict[str, int]] = {}
    for record in ended:
        shares = minutes.setdefault(int(record.seen_s // _MINUTE_S), {})
        variant = (record.finished.variant if record.finished else None) or "refused"
        shares[variant] = shares.get(variant, 0) + 1
    return DecisionsOverTime(
        tasks=len(ended),
        minutes=tuple(Shares(minute, shares) for minute, shares in sorted(minutes.items())),
        points=tuple(_points(ended))[-MOST_POINTS:],
        promises=_promises([record.finished for record in ended if record.finished is not None]),
    )


def _points(records: Iterable[TaskRecord]) -> Iterator[Point]:
    for record in records:
        end = record.finished
        if end is None or end.predicted_ms is None or end.after_decision_ms is None:
            continue
        if end.status == "answered" and end.variant is not None:
            yield Point(record.task, end.variant, end.predicted_ms, end.after_decision_ms, end.on_time)


def _promises(ends: Sequence[TaskFinished]) -> tuple[PromiseBin, ...]:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for end in ends:
        if end.promised is not None:
            bins.setdefault(min(int(end.promised * BINS), BINS - 1), []).append((end.promised, end.on_time))
    return tuple(
        PromiseBin(
            promised=sum(promised for promised, _ in each) / len(each),
            kept=sum(kept for _, kept in each) / len(each),
            tasks=len(each),
        )
        for _, each in sorted(bins.items())
    )
