"""What each sensor got lately, for dashboards. Pure: each call names its time."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field

from splitplace.messages.findings import (
    AnyPrediction,
    FoundLabels,
    FoundObjects,
    FoundRegions,
    FoundText,
    Prediction,
)
from splitplace.messages.metrics import LatestAnswer, SensorMetrics
from splitplace.messages.names import OTHER_SENSORS, sensor_part
from splitplace.messages.task import Answer
from splitplace.services.gateway.admission import Quota

MAX_SENSORS = 200
MAX_APPLICATIONS = 64
QUIET_MS = 60_000.0
"""A sensor that was silent for this long makes room for a new one."""
FORGET_MS = 86_400_000.0
"""A sensor that was silent for this long is forgotten."""
MOST_NEWS = 50
"""Sensors that are told of in one round; the others follow."""
_LONGEST_LABEL = 100


@dataclass(slots=True)
class _Record:
    """One sensor."""

    key: str
    name: str
    seen_ms: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    on_time: int = 0
    last: LatestAnswer | None = None

    def count(self, answer: Answer, *, was_accepted: bool, now_ms: float) -> None:
        kind = "finished" if was_accepted else "turned away"
        for counted in (answer.status, kind):
            self.statuses[counted] = self.statuses.get(counted, 0) + 1
        self.on_time += answer.on_time
        self.seen_ms = now_ms
        self.last = _latest(self.key, self.name, answer)

    @property
    def is_stranger(self) -> bool:
        """Whether no task of it was ever accepted."""
        return "finished" not in self.statuses

    def metrics(self, quota: Quota | None) -> SensorMetrics:
        said = self.statuses
        finished, answered = said.get("finished", 0), said.get("answered", 0)
        last = self.last
        return SensorMetrics(
            sensor=self.key,
            name=self.name,
            finished=finished,
            answered=answered,
            on_time=self.on_time,
            late=answered - self.on_time,
            late_ratio=1 - self.on_time / finished if finished else None,
            refused=said.get("refused", 0),
            invalid=said.get("invalid", 0),
            expired=said.get("expired", 0),
            failed=said.get("failed", 0),
            last_status=last.status if last else "invalid",
            last_response_ms=last.response_ms if last else None,
            in_flight=quota.tasks if quota else None,
            quota=quota.most_tasks if quota else None,
            quota_ratio=quota.share if quota else None,
        )


class SensorBook:
    """Counts the tasks of a bounded number of sensors, and keeps the last answer of each."""

    def __init__(self) -> None:
        """Nobody is known."""
        self._sensors: dict[str, _Record] = {}
        self._latest: dict[str, LatestAnswer] = {}
        self._changed: dict[str, None] = {}
        self._changed_applications: set[str] = set()
        self._gone: set[str] = set()
        self._holding: set[str] = set()
        """Sensors that had unfinished tasks when they were last looked at."""

    def count(self, answer: Answer, now_ms: float, *, was_accepted: bool) -> None:
        """Count a terminal answer. Answers that are told again do not count.

        Args:
            answer: to a task.
            now_ms: a clock that never goes back.
            was_accepted: False for tasks that were turned away at intake.
        """
        record = self._record(answer.client, now_ms, is_new_stranger=not was_accepted)
        record.count(answer, was_accepted=was_accepted, now_ms=now_ms)
        self._changed[record.key] = None
        name = answer.application
        if answer.predictions and name and (name in self._latest or len(self._latest) < MAX_APPLICATIONS):
            self._latest[name] = _latest(sensor_part(answer.client), answer.client, answer)
            self._changed_applications.add(name)

    def hold(self, clients: Iterable[str]) -> None:
        """Note who has unfinished tasks: they are news, and so are those who had some before."""
        before = self._holding
        self._holding = {key for key in map(sensor_part, clients) if key in self._sensors}
        self._changed.update(dict.fromkeys(sorted(before | self._holding)))

    def news(self, quota_of: Callable[[str], Quota]) -> Iterator[tuple[SensorMetrics, LatestAnswer | None]]:
        """Yield the figures and the last answer of sensors that changed, some of them at a time.

        Sensors that count together have no last answer and no quota.

        Args:
            quota_of: returns what a sensor holds and may hold, by its own name.
        """
        for key in list(self._changed)[:MOST_NEWS]:
            del self._changed[key]
            record = self._sensors[key]
            if key == OTHER_SENSORS:
                yield record.metrics(None), None
            else:
                yield record.metrics(quota_of(record.name)), record.last

    def application_news(self) -> Iterator[tuple[str, LatestAnswer]]:
        """Yield the last answer of each application where it is new."""
        for name in sorted(self._changed_applications):
            yield name, self._latest[name]
        self._changed_applications.clear()

    def gone(self, applications: Collection[str], now_ms: float) -> tuple[list[str], list[str]]:
        """Forget sensors that were silent for long, and applications that are not offered any more.

        Returns:
            Keys of sensors and names of applications that were forgotten since the last call.
        """
        for key in [key for key, each in self._sensors.items() if now_ms - each.seen_ms > FORGET_MS]:
            self._forget(key)
        sensors = sorted(self._gone)
        self._gone.clear()
        removed = [name for name in self._latest if name not in applications]
        for name in removed:
            del self._latest[name]
            self._changed_applications.discard(name)
        return sensors, removed

    def _record(self, client: str, now_ms: float, *, is_new_stranger: bool) -> _Record:
        key = sensor_part(client)
        if key not in self._sensors and self._makes_room(now_ms, for_stranger=is_new_stranger):
            self._sensors[key] = _Record(key, client)
            self._gone.discard(key)
        if key in self._sensors:
            return self._sensors[key]
        return self._sensors.setdefault(OTHER_SENSORS, _Record(OTHER_SENSORS, OTHER_SENSORS))

    def _makes_room(self, now_ms: float, *, for_stranger: bool) -> bool:
        """Whether there is room for a sensor: a flood of names drives out no sensor that has answers."""
        if len(self._sensors) < MAX_SENSORS:
            return True
        quiet = [
            each
            for each in self._sensors.values()
            if now_ms - each.seen_ms > QUIET_MS and (each.is_stranger or not for_stranger)
        ]
        if not quiet:
            return False
        self._forget(min(quiet, key=lambda each: (not each.is_stranger, each.seen_ms)).key)
        return True

    def _forget(self, key: str) -> None:
        del self._sensors[key]
        self._changed.pop(key, None)
        self._holding.discard(key)
        self._gone.add(key)


def _latest(key: str, name: str, answer: Answer) -> LatestAnswer:
    label, confidence = _best(answer.predictions[0]) if answer.predictions else (None, None)
    return LatestAnswer(
        sensor=key,
        name=name,
        application=answer.application,
        status=answer.status,
        label=label,
        confidence=confidence,
        inputs=len(answer.predictions),
        on_time=answer.on_time,
        response_ms=answer.response_ms,
        reason=answer.reason,
    )


def _best(found: AnyPrediction | None) -> tuple[str | None, float | None]:
    """Return the surest label of an answer, or the text that was read, with its confidence."""
    match found:
        case Prediction(label=label, confidence=confidence):
            return label, confidence
        case FoundObjects(objects=[best, *_]) | FoundLabels(labels=[best, *_]):
            return best.label, best.confidence
        case FoundRegions(regions=[largest, *_]):
            return largest.label, None
        case FoundText(text=text, confidence=confidence):
            return text[:_LONGEST_LABEL], confidence
    return None, None
