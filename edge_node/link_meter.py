"""What the link to the broker carries, measured from the bytes that flow anyway. Pure.

Bytes towards the broker are timed by its acknowledgements, bytes from it by the chunks of files, which the
node has requested, and by frames that follow each other. A frame that had to wait behind another took the
time since the end of the other. Else it took the time since it was sent, without a round trip.
"""

from collections import deque
from math import inf
from statistics import median

from splitplace.messages.cluster import LinkFigures

LEAST_BYTES = 32 * 1024
"""Fewer bytes tell more of the processes and buffers at both ends than of the link."""
SMALL_BYTES = 2 * 1024
"""A publication of at most this size tells the round trip."""
SLOW_MS = 20.0
"""A frame of a run that took less may have waited for its sender, so it only counts where it was faster."""
REMEMBERED_BYTES = 2 * 1024 * 1024
"""Bytes after which an older measurement has lost most of its weight."""
HALF_LIFE_MS = 60_000.0
"""Time in which a measurement loses half of its weight."""
MOST_BYTES_PER_MS = 1e6
"""1 GB/s: what is faster cannot be told from nothing."""
ROUND_TRIPS = 16
"""Most recent round trips that count."""


class Flow:
    """The bytes of one direction, one after the other."""

    def __init__(self) -> None:
        self._ended_ms = -inf
        self._bytes = 0.0
        self._ms = 0.0
        self._noted_ms = 0.0

    @property
    def megabytes_per_second(self) -> float | None:
        """The speed; None before anything was measured."""
        return self._bytes / self._ms / 1000 if self._ms > 0 else None

    def passed(self, size: int, began_ms: float, ended_ms: float, lead_ms: float) -> None:
        """Note bytes that have passed.

        Args:
            size: number of bytes.
            began_ms: when they were sent or requested.
            ended_ms: when they had arrived.
            lead_ms: time that no bytes at all would have taken.
        """
        since_ms = max(self._ended_ms, began_ms + lead_ms)
        self._ended_ms = max(self._ended_ms, ended_ms)
        if size >= LEAST_BYTES:
            self._note(size, ended_ms - since_ms, ended_ms)

    def followed(self, size: int, ended_ms: float) -> None:
        """Note bytes that were sent with those before. Where their sender is slower, the link was idle."""
        took_ms = ended_ms - self._ended_ms
        self._ended_ms = max(self._ended_ms, ended_ms)
        known = self.megabytes_per_second
        if size < LEAST_BYTES:
            return
        if took_ms >= SLOW_MS or known is None or size > 1000 * known * took_ms:
            self._note(size, took_ms, ended_ms)

    def ended(self, ended_ms: float) -> None:
        """Note the end of bytes that tell nothing themselves."""
        self._ended_ms = max(self._ended_ms, ended_ms)

    def _note(self, size: int, took_ms: float, now_ms: float) -> None:
        kept = 0.5 ** (max(0.0, now_ms - self._noted_ms) / HALF_LIFE_MS + size / REMEMBERED_BYTES)
        self._bytes = kept * self._bytes + size
        self._ms = kept * self._ms + max(took_ms, size / MOST_BYTES_PER_MS)
        self._noted_ms = now_ms


class LinkMeter:
    """Both directions of a node's link, and the round trip to the broker."""

    def __init__(self, seed_megabytes_per_second: float | None = None) -> None:
        """A meter that has measured nothing.

        Args:
            seed_megabytes_per_second: speed to report until something was measured.
        """
        self._seed = seed_megabytes_per_second
        self._up = Flow()
        self._down = Flow()
        self._round_trips = deque[float](maxlen=ROUND_TRIPS)
        self._under_way = 0
        self._requested_ms: dict[tuple[str, int], float] = {}
        self._run: object = None

    def figures(self) -> LinkFigures:
        """Return what was measured, for the vitals."""
        return LinkFigures(
            up_megabytes_per_second=self._up.megabytes_per_second or self._seed,
            down_megabytes_per_second=self._down.megabytes_per_second or self._seed,
            round_trip_ms=median(self._round_trips) if self._round_trips else None,
        )

    # --- towards the broker ------------------------------------------------------------------------

    def sending(self) -> bool:
        """Note that a publication is handed to the connection. Returns whether it is the only one."""
        self._under_way += 1
        return self._under_way == 1

    def acknowledged(self, size: int, began_ms: float, now_ms: float, *, alone: bool) -> None:
        """Note the acknowledgement of a publication.

        Args:
            size: its bytes.
            began_ms: when it was handed to the connection.
            now_ms: the present moment.
            alone: what `sending` has returned for it.
        """
        self._under_way -= 1
        if alone and size <= SMALL_BYTES:
            self._round_trips.append(now_ms - began_ms)
        self._up.passed(size, began_ms, now_ms, self._lead_ms)

    def given_up(self) -> None:
        """Note that a publication was given up."""
        self._under_way -= 1

    # --- from the broker ---------------------------------------------------------------------------

    def requested(self, file: str, chunk: int, now_ms: float) -> None:
        """Note the request of a chunk."""
        self._requested_ms[file, chunk] = now_ms

    def chunk(self, file: str, chunk: int, size: int, now_ms: float) -> None:
        """Note a chunk, also one that another node has requested."""
        began_ms = self._requested_ms.pop((file, chunk), None)
        self._run = None
        if began_ms is None:
            self._down.ended(now_ms)
        else:
            self._down.passed(size, began_ms, now_ms, self._lead_ms)

    def forget(self, file: str) -> None:
        """Forget the requests of a file: it is here, or was given up."""
        for key in [key for key in self._requested_ms if key[0] == file]:
            del self._requested_ms[key]

    def frame(self, run: object, size: int, now_ms: float) -> None:
        """Note a frame of a tensor. Frames of the same run were sent one right after the other."""
        if run == self._run:
            self._down.followed(size, now_ms)
        else:
            self._down.ended(now_ms)
        self._run = run

    @property
    def _lead_ms(self) -> float:
        return min(self._round_trips, default=0.0)
