"""Judge a history: what was promised and not kept. Pure.

The promises (docs/nemesis.md): every accepted task gets exactly one terminal answer, in time and equal to
what its network says; copies of an answer are equal; nothing stays behind; nothing grows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from nemesis import history as records
from nemesis.growth import Slope, grown, slopes
from nemesis.hindrance import (
    Hampered,
    Window,
    allowed_until_s,
    broker_deaths,
    clone_windows,
    covered_s,
    gateway_ends,
    starved,
    windows,
)

FindingKind = Literal[
    "lost",
    "false-invalid",
    "contradicting",
    "unequal-copies",
    "wrong",
    "late",
    "unfinished",
    "undelivered",
    "dead-at-end",
    "silent-part",
    "crash-loop",
    "poison-unanswered",
    "stray-retained",
    "grows",
]
RecordT = TypeVar("RecordT", bound=records.Record)

CONFIDENCE_TOLERANCE = 0.02
CRASH_LOOP = 3
"""A part that ends this often without being hit needs a person."""
SILENT_S = 6.0
"""Silence after which a part does not come back, once all faults are healed."""


class Opinion(Protocol):
    """What the network may answer for one input."""

    @property
    def classes(self) -> frozenset[int]:
        """Classes that are right."""

    @property
    def confidence(self) -> float:
        """Probability of the most likely one."""


class Reference(Protocol):
    """The right answers."""

    def __call__(self, application: str, variant: str, *, partial: bool) -> Sequence[Opinion]:
        """Return an opinion on every sample. Raises KeyError for an unknown application or variant."""


@dataclass(frozen=True)
class Promises:
    """What a run is held to."""

    grace_s: float = 0.5
    """The gateway's grace after the deadline."""
    allowance_s: float = 0.25
    """For the way to the sensor and back."""
    starved_allowance_s: float = 1.0
    """Likewise for tasks on whose way processors were short."""
    recovery_s: float = 3.0
    """For gateway and broker, to be back after a fault that hit them."""
    starved_recovery_s: float = 6.0
    """Likewise where processors were short: to start a process is mostly work."""
    slope_mib_per_minute: float = 0.1
    """Growth of memory after warm-up; judged where a process lived long enough."""
    slope_after_s: float = 600.0
    """A shorter life says little about a slope."""
    most_growth_mib: float = 400.0
    """Growth of memory of one process after warm-up, at any moment. A node that comes to hold every shipped
    network, with ResNet50 whole and in stages, grows by some 290."""


@dataclass(frozen=True)
class Finding:
    """A promise that was not kept."""

    kind: FindingKind
    subject: str
    """The task, part or poison."""
    text: str
    at_s: float = 0.0


@dataclass
class Verdict:
    """The result of a check."""

    findings: list[Finding] = field(default_factory=list)
    tasks: int = 0
    accepted: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    predictions: int = 0
    """Classes that were compared with the network's own."""
    excused: int = 0
    """Answers that a killed broker lost within seconds of having them; asking again gave them."""
    repeated: int = 0
    """Copies of answers that a sensor heard already."""
    worst_lateness_s: float = 0.0
    """Beyond deadline, grace and downtime."""
    worst_lag_s: float = 0.0
    """For which the nemesis itself got no processor; that excuses a delay."""
    starved_s: float = 0.0
    """For which processors were short."""
    slopes: list[Slope] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    """How often each part ended although no fault had hit it."""

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.findings

    def count(self, kind: FindingKind) -> int:
        """Return the number of findings of a kind."""
        return sum(finding.kind == kind for finding in self.findings)


@dataclass
class Story:
    """Everything about one task."""

    key: str
    sent: list[records.Sent] = field(default_factory=list)
    acknowledged_s: float | None = None
    heard: list[records.Heard] = field(default_factory=list)
    row: records.JournalRow | None = None

    @property
    def accepted(self) -> bool:
        """Whether the system owes an answer, as far as anybody can see.

        The journal's row says so. Without the row, every answer but `invalid` and `refused` does.
        """
        return self.row is not None or any(h.status not in {"invalid", "refused"} for h in self.heard)


def check(
    history: Iterable[records.Record], reference: Reference | None = None, promises: Promises | None = None
) -> Verdict:
    """Judge a finished run.

    Args:
        history: its records.
        reference: the right answers; None leaves classes unchecked.
        promises: what to hold it to.
    """
    promises = promises or Promises()
    events = list(history)
    short = starved(events)
    hindrances = windows(
        events, promises.recovery_s, short=short, starved_recovery_s=promises.starved_recovery_s
    )
    hampered = Hampered(hindrances, broker_deaths(hindrances), short, gateway_ends(events))
    verdict = Verdict()
    for story in stories(events):
        _count(story, verdict)
        verdict.findings += _answers(story, verdict, hampered)
        verdict.findings += _times(story, verdict, hampered, promises)
        verdict.findings += _rows(story)
        if reference is not None:
            verdict.findings += _classes(story, verdict, reference)
    verdict.findings += _parts(events, verdict)
    verdict.findings += _poisons(events, hampered.deaths)
    verdict.findings += _retained(events)
    verdict.slopes = slopes(_of(events, records.Measured))
    verdict.findings += [
        Finding("grows", slope.part, text)
        for slope in verdict.slopes
        if (
            text := grown(
                slope,
                most_mib=promises.most_growth_mib,
                most_mib_per_minute=promises.slope_mib_per_minute,
                after_s=promises.slope_after_s,
            )
        )
    ]
    verdict.starved_s = covered_s(short)
    verdict.worst_lag_s = max((lagged.lag_s for lagged in _of(events, records.Lagged)), default=0.0)
    for fault in _of(events, records.FaultBegan):
        verdict.faults[fault.fault] = verdict.faults.get(fault.fault, 0) + 1
    return verdict


def _of(events: Iterable[records.Record], kind: type[RecordT]) -> list[RecordT]:
    return [event for event in events if isinstance(event, kind)]


def stories(events: Iterable[records.Record]) -> list[Story]:
    """Return what happened to each task that a sensor sent, in the order of the first sends."""
    found: dict[str, Story] = {}
    for event in events:
        match event:
            case records.Sent():
                found.setdefault(event.task, Story(event.task)).sent.append(event)
            case records.Acknowledged() if event.task in found and found[event.task].acknowledged_s is None:
                found[event.task].acknowledged_s = event.at_s
            case records.Heard() if event.task in found:
                found[event.task].heard.append(event)
            case records.JournalRow() if event.task in found:
                found[event.task].row = event
            case _:
                pass
    return list(found.values())


def _count(story: Story, verdict: Verdict) -> None:
    verdict.tasks += 1
    verdict.accepted += story.accepted
    status = story.heard[0].status if story.heard else "nothing heard"
    verdict.statuses[status] = verdict.statuses.get(status, 0) + 1
    verdict.repeated += max(0, len(story.heard) - 1)


def _answers(story: Story, verdict: Verdict, hampered: Hampered) -> Iterator[Finding]:
    """Exactly one terminal answer; copies are equal."""
    if not story.heard:
        # A broker that is killed forgets what it held: the sensor's time-out covers that.
        if story.acknowledged_s is None or story.row is not None:
            lost = story.accepted
        else:
            lost = not _within(hampered.deaths, story.acknowledged_s)
            verdict.excused += not lost
        if lost:
            text = "accepted (journal)" if story.row else "acknowledged"
            yield Finding("lost", story.key, f"{text}, never answered, not even when asked again", _at(story))
        return
    for answer in story.heard:
        if answer.status == "invalid":
            yield Finding("false-invalid", story.key, f"a valid task heard: {answer.reason}", answer.at_s)
            break
    heard = [answer for answer in story.heard if not _forgotten(answer, story, hampered.gateway_ends)]
    outcomes = {(answer.status, answer.classes): answer for answer in heard}
    if len(outcomes) > 1:
        told = ", then ".join(f"{answer.status} at {answer.at_s:.1f} s" for answer in outcomes.values())
        text = f"{told}; sent {len(story.sent)} times"
        yield Finding("contradicting", story.key, text, story.heard[-1].at_s)
    elif len({answer.digest for answer in heard}) > 1:
        yield Finding("unequal-copies", story.key, "copies of the answer differ", story.heard[-1].at_s)


def _forgotten(answer: records.Heard, story: Story, gateway_ends: Sequence[float]) -> bool:
    """Whether a refusal died with the gateway: it accepted nothing, so the next gateway judges anew."""
    last_s = story.heard[-1].at_s
    return answer.status == "refused" and any(answer.at_s <= end_s < last_s for end_s in gateway_ends)


def _at(story: Story) -> float:
    return story.sent[0].at_s


def _times(
    story: Story,
    verdict: Verdict,
    hampered: Hampered,
    promises: Promises,
) -> Iterator[Finding]:
    """Within deadline, grace and downtime of gateway and broker."""
    if not story.heard:
        return
    first, heard = story.sent[0], story.heard[0]
    # A message that was not acknowledged was perhaps never there: its last repetition counts.
    began_s = max((sent.at_s for sent in story.sent if not sent.again), default=first.at_s)
    due_s = began_s + first.deadline_ms / 1000 + promises.grace_s
    is_starved = any(window.from_s <= heard.at_s and window.until_s >= began_s for window in hampered.short)
    allowance_s = promises.starved_allowance_s if is_starved else promises.allowance_s
    # A fault within the allowance still finds the answer on its way.
    allowed_s = allowed_until_s(began_s, due_s + allowance_s, hampered.hindrances)
    late_s = heard.at_s - allowed_s + allowance_s
    if late_s <= 0:
        return
    if story.sent[-1].again and _broker_forgot(story, heard, began_s, allowed_s, hampered.deaths):
        verdict.excused += 1
        return
    verdict.worst_lateness_s = max(verdict.worst_lateness_s, late_s)
    if late_s > allowance_s:
        asked = " (asked again)" if story.sent[-1].again else ""
        text = f"{heard.status} {late_s:.2f} s after deadline, grace and downtime{asked}"
        yield Finding("late", story.key, text, heard.at_s)


def _broker_forgot(
    story: Story, heard: records.Heard, began_s: float, allowed_s: float, deaths: Sequence[Window]
) -> bool:
    """Whether a killed broker took the answer with it, or the task before it was accepted."""
    if heard.repeated:
        return any(began_s < death.until_s and death.from_s < allowed_s for death in deaths)
    return story.acknowledged_s is not None and _within(deaths, story.acknowledged_s)


def _within(found: Iterable[Window], at_s: float) -> bool:
    return any(window.from_s <= at_s <= window.until_s for window in found)


def _rows(story: Story) -> Iterator[Finding]:
    """No row of the journal is open when all is over."""
    if story.row is None:
        return
    if story.row.status is None:
        yield Finding("unfinished", story.key, "its row in the journal has no answer", story.row.at_s)
    elif not story.row.delivered:
        yield Finding("undelivered", story.key, f"{story.row.status}, never delivered", story.row.at_s)


def _classes(story: Story, verdict: Verdict, reference: Reference) -> Iterator[Finding]:
    """Answers are those of the network that the answer names."""
    for answer in story.heard:
        if answer.status != "answered":
            continue
        sent = story.sent[0]
        if answer.decision is None or len(answer.classes) != len(sent.inputs):
            text = f"{len(answer.classes)} classes for {len(sent.inputs)} inputs by {answer.decision}"
            yield Finding("wrong", story.key, text, answer.at_s)
            return
        try:
            opinions = reference(sent.application, answer.decision, partial=answer.partial)
        except KeyError as error:
            yield Finding("wrong", story.key, str(error), answer.at_s)
            return
        pairs = zip(sent.inputs, answer.classes, answer.confidences, strict=True)
        for index, found, confidence in pairs:
            verdict.predictions += 1
            opinion = opinions[index]
            unsure = not answer.partial and abs(confidence - opinion.confidence) > CONFIDENCE_TOLERANCE
            if found not in opinion.classes or unsure:
                right = f"{sorted(opinion.classes)} ({opinion.confidence:.2f})"
                text = f"sample {index} by {answer.decision}: {found} ({confidence:.2f}), not {right}"
                yield Finding("wrong", story.key, text, answer.at_s)
                return


def _parts(events: Sequence[records.Record], verdict: Verdict) -> Iterator[Finding]:
    """Every part lives and works when all faults are healed."""
    words: dict[str, str] = defaultdict(str)
    clones = clone_windows(events)
    counted: Counter[str] = Counter()
    for ended in _of(events, records.PartEnded):
        verdict.ended[ended.part] = verdict.ended.get(ended.part, 0) + 1
        words[ended.part] = ended.last_words[-150:]
        # Of two parts with one name one ends: a part that starts while its clone lives is the newcomer.
        counted[ended.part] += not _within(clones.get(ended.part, ()), ended.at_s)
    for part, times in counted.items():
        if times >= CRASH_LOOP:
            yield Finding("crash-loop", part, f"ended {times} times by itself: {words[part]}")
    for beat in _of(events, records.LastBeat):
        if beat.silent_s > SILENT_S:
            text = f"no sign of life for {beat.silent_s:.0f} s after all faults were healed"
            yield Finding("silent-part", beat.part, text, beat.at_s)
    for probe in _of(events, records.Probed):
        if probe.status != "answered":
            text = f"an easy task after the end of all faults: {probe.status or 'no answer'}"
            yield Finding("dead-at-end", probe.task, text, probe.at_s)


def _poisons(events: Sequence[records.Record], deaths: Sequence[Window]) -> Iterator[Finding]:
    """Whoever sends nonsense on a task topic hears so, unless the broker died with it."""
    answered = {event.poison for event in _of(events, records.PoisonAnswered)}
    silent = {
        event.poison: event
        for event in _of(events, records.PoisonSent)
        if event.must_be_answered and event.poison not in answered and not _within(deaths, event.at_s)
    }
    for poison, event in silent.items():
        yield Finding("poison-unanswered", poison, "its sender never heard why", event.at_s)


def _retained(events: Sequence[records.Record]) -> Iterator[Finding]:
    """No task, answer or tensor is retained at the end."""
    for last in _of(events, records.RetainedTopics)[-1:]:
        for topic in last.stray:
            yield Finding("stray-retained", topic, "is retained by the broker", last.at_s)
