"""What happened in a run, as JSON lines: everything that sensors sent and heard, and every fault.

Times are seconds on one monotonic clock, from the start of the run. A record never changes.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class Record:
    """One event."""

    at_s: float
    kinds: ClassVar[dict[str, type["Record"]]] = {}

    def __init_subclass__(cls) -> None:
        Record.kinds[cls.__name__] = cls


@dataclass(frozen=True, kw_only=True)
class Sent(Record):
    """A sensor published a task."""

    task: str
    """`<client>.<task id>`."""
    application: str
    form: str
    """Format and addressing of the message."""
    inputs: tuple[int, ...]
    """Indices into the application's samples."""
    deadline_ms: float
    again: bool = False
    """Whether the sensor asked again at the end of the run because it had heard nothing."""


@dataclass(frozen=True, kw_only=True)
class Acknowledged(Record):
    """The broker acknowledged a task to its sensor."""

    task: str


@dataclass(frozen=True, kw_only=True)
class Heard(Record):
    """A sensor received an answer."""

    task: str
    status: str
    reason: str = ""
    decision: str | None = None
    classes: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()
    partial: bool = False
    repeated: bool = False
    digest: str = ""
    """Hash of the answer without `repeated`: copies must be equal."""


@dataclass(frozen=True, kw_only=True)
class FaultBegan(Record):
    """A fault was injected."""

    number: int
    fault: str
    targets: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class FaultHealed(Record):
    """A fault is over; what it stopped was started again."""

    number: int


@dataclass(frozen=True, kw_only=True)
class PartStarted(Record):
    """A process of the product was started."""

    part: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class PartEnded(Record):
    """A process ended although no fault had hit it."""

    part: str
    pid: int
    code: int
    last_words: str = ""


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """Memory, descriptors and threads of a part and its children."""

    part: str
    pid: int
    memory_mib: float
    descriptors: int
    threads: int
    starved_s: float = 0.0
    """For which its main thread wanted a processor and got none, since the measurement before."""
    period_s: float = 0.0
    """Since the measurement before; 0 for the first."""


@dataclass(frozen=True, kw_only=True)
class RetainedTopics(Record):
    """The topics that the broker retains."""

    topics: int
    total_bytes: int
    stray: tuple[str, ...] = ()
    """Retained topics that must never be retained, such as tasks and answers."""


@dataclass(frozen=True, kw_only=True)
class JournalRow(Record):
    """A row of the gateway's journal at the end of the run."""

    task: str
    status: str | None
    """Status of the terminal answer; None = unfinished."""
    delivered: bool


@dataclass(frozen=True, kw_only=True)
class LastBeat(Record):
    """For how long a part had given no sign of life when all faults were healed and all tasks were over."""

    part: str
    silent_s: float


@dataclass(frozen=True, kw_only=True)
class Probed(Record):
    """An easy task at the very end, when nothing disturbs any more."""

    task: str
    status: str | None
    took_s: float


@dataclass(frozen=True, kw_only=True)
class PoisonSent(Record):
    """A hostile message was published."""

    poison: str
    must_be_answered: bool


@dataclass(frozen=True, kw_only=True)
class PoisonAnswered(Record):
    """The sender of a hostile message got an answer."""

    poison: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Lagged(Record):
    """The nemesis itself got no processor: what it heard then may have come earlier."""

    lag_s: float


@dataclass(frozen=True, kw_only=True)
class Note(Record):
    """Something a reader should know, such as a fault that this machine cannot inject."""

    text: str


def to_line(record: Record) -> str:
    """Return the record as one line of JSON."""
    return json.dumps({"kind": type(record).__name__, **dataclasses.asdict(record)}, ensure_ascii=False)


def from_line(line: str) -> Record:
    """Return the record of a line. Raises ValueError or KeyError for anything else."""
    fields: dict[str, Any] = json.loads(line)
    kind: Any = Record.kinds[fields.pop("kind")]
    record: Record = kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    )
    return record


def read(lines: Iterable[str]) -> Iterator[Record]:
    """Return the records of a history file."""
    return (from_line(line) for line in lines if line.strip())


class History:
    """Append records to a file, at once, so that they survive an interrupted run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        self._began_s = time.monotonic()
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def now_s(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self._began_s

    def add(self, record: Record) -> None:
        """Append a record."""
        self.records.append(record)
        self._file.write(to_line(record) + "\n")
        self._file.flush()

    def note(self, text: str) -> None:
        """Append a note for the reader."""
        self.add(Note(at_s=self.now_s, text=text))
