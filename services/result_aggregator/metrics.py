"""Task outcome counters for dashboards: over all tasks, by application, by variant. Pure."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from splitplace.messages.application import Application
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import TaskFinished
from splitplace.policies.promises import largest_error
from splitplace.policies.scoring import mean, quantile, reward_of

WINDOW = 1000
"""Most recent responses over which quantiles are taken."""

NEAR = 0.4
"""How far an actual time may be from the predicted one, as a share of that, to count as foreseen."""

MAX_BOARDS = 512
MAX_REMEMBERED = 2048
"""Counted tasks that are remembered: the broker may repeat a message within moments."""
_MOST = 2**53

BoardKind = Literal["tasks", "application", "decision"]
BoardKey = tuple[BoardKind, str]
ALL: BoardKey = ("tasks", "")


@dataclass(slots=True)
class _Board:
    """Sums over the tasks of one board."""

    statuses: dict[str, int] = field(default_factory=dict)
    partial: int = 0
    on_time: int = 0
    inputs: int = 0
    moved_bytes: int = 0
    reward_sum: float = 0.0
    variant_accuracy_sum: float = 0.0
    variant_accuracy_count: int = 0
    right_labels: float = 0.0
    labels: int = 0
    responses_ms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    predicted_ratios: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Actual over predicted times."""
    promises: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Promised probabilities of an answer in time, and whether there was one."""

    def count(self, task: TaskFinished) -> None:
        self.statuses[task.status] = self.statuses.get(task.status, 0) + 1
        self.moved_bytes += task.moved_bytes
        if task.promised is not None and task.variant is not None:
            self.promises.append((task.promised, task.status == "answered" and task.on_time))
        if task.status != "answered":
            return  # equation 15 gives 0 without a result
        self.partial += task.coverage is not None and task.coverage < 1
        self.on_time += task.on_time
        self.inputs += task.batch
        self.reward_sum += reward_of(task)
        self.responses_ms.append(task.response_ms)
        if task.predicted_ratio is not None:
            self.predicted_ratios.append(task.predicted_ratio)
        if task.accuracy is not None:
            self.right_labels += task.accuracy * task.batch
            self.labels += task.batch
        if task.variant_accuracy is not None:
            self.variant_accuracy_sum += task.variant_accuracy
            self.variant_accuracy_count += 1

    def metrics(self) -> TaskMetrics:
        finished = sum(self.statuses.values())
        responses, ratios = list(self.responses_ms), list(self.predicted_ratios)
        return TaskMetrics(
            finished=finished,
            answered=self.statuses.get("answered", 0),
            partial=self.partial,
            on_time=self.on_time,
            refused=self.statuses.get("refused", 0),
            expired=self.statuses.get("expired", 0),
            failed=self.statuses.get("failed", 0),
            hit_rate=_ratio(self.on_time, finished),
            reward=_ratio(self.reward_sum, finished),
            accuracy=_ratio(self.right_labels, self.labels),
            variant_accuracy=_ratio(self.variant_accuracy_sum, self.variant_accuracy_count),
            response_p50_ms=quantile(responses, 0.5),
            response_p95_ms=quantile(responses, 0.95),
            predicted_ratio_p50=quantile(ratios, 0.5),
            predicted_within=_ratio(sum(abs(ratio - 1) <= NEAR for ratio in ratios), len(ratios)),
            promised=mean([said for said, _ in self.promises]),
            promise_kept=mean([kept for _, kept in self.promises]),
            promise_error=largest_error(self.promises),
            inputs=self.inputs,
            moved_bytes=min(_MOST, self.moved_bytes),
        )


class Scoreboard:
    """Counts every finished task once, however often it is reported."""

    def __init__(self) -> None:
        self._boards: dict[BoardKey, _Board] = {ALL: _Board()}
        self._changed: set[BoardKey] = {ALL}
        self._counted: OrderedDict[str, None] = OrderedDict()

    def add_application(self, application: Application) -> None:
        """Add boards for an application and its variants, with counts of 0."""
        self._board(("application", application.name))
        for variant in application.variants:
            self._board(("decision", variant.name))

    def count(self, task: TaskFinished) -> None:
        """Count a task that has its terminal answer, unless it was counted before."""
        if task.task in self._counted:
            return
        self._counted[task.task] = None
        if len(self._counted) > MAX_REMEMBERED:
            self._counted.popitem(last=False)
        keys: list[BoardKey] = [ALL, ("application", task.application)]
        if task.variant is not None:
            keys.append(("decision", task.variant))
        for key in keys:
            board = self._board(key)
            if board is not None:
                board.count(task)
                self._changed.add(key)

    def news(self) -> Iterator[tuple[BoardKey, TaskMetrics]]:
        """Metrics of the boards that changed since the last call."""
        while self._changed:
            key = self._changed.pop()
            yield key, self._boards[key].metrics()

    def _board(self, key: BoardKey) -> _Board | None:
        """Return a board, new if it was unknown; None if there are too many."""
        if key not in self._boards:
            if len(self._boards) >= MAX_BOARDS:
                return None
            self._boards[key] = _Board()
            self._changed.add(key)
        return self._boards[key]


def _ratio(part: float, whole: int) -> float | None:
    """Return a ratio within [0, 1], also where sums were rounded; None for 0 of 0."""
    return min(1.0, part / whole) if whole else None
