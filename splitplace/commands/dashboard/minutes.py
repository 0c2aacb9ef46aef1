"""Outcomes by the minute, and what they say of an hour: hit rate, tail, rate. Pure and bounded."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from splitplace.messages.task import TaskFinished

MINUTE_S = 60
_STEP = 1.08
"""Ratio of neighbouring classes of response times: a percentile is right within 8 %."""


@dataclass(slots=True)
class Minute:
    """Tasks that ended in one minute."""

    minute: int
    """Minutes since 1970."""
    finished: int = 0
    on_time: int = 0
    late: int = 0
    responses: Counter[int] = field(default_factory=Counter)
    """Number of answers for each class of response times."""

    def add(self, end: TaskFinished) -> None:
        """Count a task."""
        self.finished += 1
        self.on_time += end.on_time
        if end.status == "answered":
            self.late += not end.on_time
            self.responses[response_class(end.response_ms)] += 1


@dataclass(frozen=True, slots=True)
class Period:
    """What some minutes say together; None = nothing to measure."""

    finished: int
    on_time: int
    late: int
    hit_rate: float | None
    p50_ms: float | None
    p95_ms: float | None


def response_class(response_ms: float) -> int:
    """Return the class of a response time."""
    return math.ceil(math.log(max(response_ms, 1.0), _STEP))


def period(minutes: Iterable[Minute]) -> Period:
    """Put minutes together."""
    finished = on_time = late = 0
    responses: Counter[int] = Counter()
    for each in minutes:
        finished += each.finished
        on_time += each.on_time
        late += each.late
        responses.update(each.responses)
    return Period(
        finished=finished,
        on_time=on_time,
        late=late,
        hit_rate=on_time / finished if finished else None,
        p50_ms=_percentile(responses, 0.5),
        p95_ms=_percentile(responses, 0.95),
    )


def _percentile(responses: Counter[int], share: float) -> float | None:
    wanted = share * responses.total()
    for number in sorted(responses):
        wanted -= responses[number]
        if wanted <= 0:
            return float(_STEP**number)
    return None
