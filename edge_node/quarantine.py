"""Fragments that ended this node's process: they are not run again at once after its restart.

A fragment whose run hung is put aside for a while, and for longer the second time. One that was being loaded
or run for the first time when the process died is only suspected: the process may have died of anything else.
So is one whose preparation was killed: memory may have been short. Such a fragment is put aside from the
second time on. A run that succeeds clears a fragment.

Calls block for a small file; `begin` and `end` do not wait until it is on the disk. All may be called in any
thread.
"""

import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from splitplace.bus.background import now_ms
from splitplace.messages.base import Part
from splitplace.storage.replace import replace_file

log = logging.getLogger(__name__)

ASIDE_MS: Final = (0.0, 60_000.0, 3_600_000.0)
"""How long a fragment is put aside, by the number of times that count."""

FILE: Final = "quarantine.json"
MAX_FRAGMENTS: Final = 64
_TRIAL: Final = ".trial"


class _Record(Part):
    """What one fragment has done."""

    hangs: int = 0
    crashes: int = 0
    reason: str = ""

    @property
    def aside_ms(self) -> float:
        counts = self.hangs + max(0, self.crashes - 1)
        return ASIDE_MS[min(counts, len(ASIDE_MS) - 1)]


class Quarantine:
    """The fragments of one node that are put aside, in a file beside them."""

    def __init__(self, folder: Path, clock: Callable[[], float] = now_ms) -> None:
        """Read what earlier processes have left. The folder exists; a file that makes no sense is ignored.

        Args:
            folder: the fragments of this node.
            clock: time in ms.
        """
        self._folder = folder
        self._clock = clock
        self._began_ms = clock()
        self._since_ms: dict[str, float] = {}
        """Since when fragments are put aside that this process has counted; others since it began."""
        self._lock = threading.Lock()
        self._records = _read(folder / FILE)
        for trial in folder.glob(f"*{_TRIAL}"):
            with suppress(OSError):
                trial.unlink()
            self._count(trial.stem, crashes=1, reason="the process died when it was loaded or first run")

    def refusal(self, fragment: str) -> str | None:
        """Return why a fragment must not be run now; None if it may be."""
        with self._lock:
            record = self._records.get(fragment)
            since_ms = self._since_ms.get(fragment, self._began_ms)
        left_ms = record.aside_ms - (self._clock() - since_ms) if record is not None else 0.0
        if record is None or left_ms <= 0:
            return None
        times = _ordinal(record.hangs + record.crashes)
        return f"it is put aside for {left_ms / 1000:.0f} s more, for the {times} time: {record.reason}"

    def refused(self) -> tuple[str, ...]:
        """Return the fragments that are put aside now."""
        with self._lock:
            fragments = tuple(self._records)
        return tuple(fragment for fragment in fragments if self.refusal(fragment))

    def blame(self, fragment: str, reason: str) -> None:
        """Note that a fragment hangs. Returns when that is on the disk."""
        (self._folder / f"{fragment}{_TRIAL}").unlink(missing_ok=True)
        self._count(fragment, hangs=1, reason=reason)

    def suspect(self, fragment: str, reason: str) -> None:
        """Note that a process of its own was killed while it prepared or measured a fragment."""
        with self._lock:
            self._since_ms[fragment] = self._clock()
        self._count(fragment, crashes=1, reason=reason)

    def begin(self, fragment: str) -> None:
        """Note that a fragment is loaded, or run for the first time. Without a disk nothing is noted."""
        with suppress(OSError):
            (self._folder / f"{fragment}{_TRIAL}").touch()

    def end(self, fragment: str, *, ran: bool) -> None:
        """Note that the process has survived it; `ran`: with a result."""
        with suppress(OSError):
            (self._folder / f"{fragment}{_TRIAL}").unlink(missing_ok=True)
        with self._lock:
            cleared = ran and self._records.pop(fragment, None) is not None
        if cleared:
            self._write()

    def _count(self, fragment: str, *, hangs: int = 0, crashes: int = 0, reason: str) -> None:
        with self._lock:
            before = self._records.pop(fragment, _Record())
            self._records[fragment] = _Record(
                hangs=before.hangs + hangs, crashes=before.crashes + crashes, reason=reason
            )
            while len(self._records) > MAX_FRAGMENTS:
                oldest = next(iter(self._records))
                del self._records[oldest]
                self._since_ms.pop(oldest, None)
        self._write()

    def _write(self) -> None:
        with self._lock:
            content = json.dumps({name: record.model_dump() for name, record in self._records.items()})
        try:
            replace_file(self._folder / FILE, content.encode())
        except OSError as error:
            log.warning("cannot remember which fragments are put aside: %s", error)


def _read(path: Path) -> dict[str, _Record]:
    try:
        found = json.loads(path.read_bytes()[: 1 << 20])
        return {str(name): _Record.model_validate(fields) for name, fields in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        log.warning("%s cannot be read and is ignored: %s", path, error)
        return {}


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
