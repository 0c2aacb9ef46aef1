"""Times that this node has measured of its own calls, pacing and throttling included. Pure."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FragmentTiming

_KEPT = 0.9
"""Weight of all calls before the newest one."""
_LEAST_SPREAD = 0.01
"""Relative variance of batch sizes from which on the times tell a call's fixed part from that of an image."""
_SLOWED = 2.0
"""A call of a usual size that takes less than the known time divided by this raises doubts."""
_DOUBTS = 2
"""Such calls in a row after which older ones are forgotten: what slowed them is over."""
_MOST_MS = 1e12
"""Limit of the messages."""


class Line(NamedTuple):
    """Time of a call: `call_ms + n * image_ms` for n images."""

    call_ms: float
    image_ms: float

    def of(self, images: float) -> float:
        """Return the time of a call on so many images."""
        return self.call_ms + images * self.image_ms


@dataclass(slots=True)
class _Sums:
    """Decayed sums over calls, enough to fit a line."""

    calls: float = 0.0
    images: float = 0.0
    squares: float = 0.0
    took_ms: float = 0.0
    products: float = 0.0
    recent: bool = False
    """Whether there were calls since the node's speed was last measured."""
    doubts: list[tuple[int, float]] = field(default_factory=list)
    """Images and times of the last calls that were much faster than known."""

    def add(self, images: int, took_ms: float, described_call_ms: float) -> None:
        """Note a call. Calls can be slowed by other things, but not sped up: faster ones count more."""
        if self._is_doubtful(images, took_ms, described_call_ms):
            self.doubts.append((images, took_ms))
        else:
            self.doubts.clear()
        if len(self.doubts) < _DOUBTS:
            self._add(images, took_ms)
            return
        self.calls = self.images = self.squares = self.took_ms = self.products = 0.0
        for doubt in self.doubts:
            self._add(*doubt)
        self.doubts.clear()

    def _is_doubtful(self, images: int, took_ms: float, described_call_ms: float) -> bool:
        if not self.calls:
            return False
        usual = self.images / self.calls
        alike = usual / _SLOWED <= images <= usual * _SLOWED
        return alike and _SLOWED * took_ms < self.line(described_call_ms).of(images)

    def _add(self, images: int, took_ms: float) -> None:
        self.calls = _KEPT * self.calls + 1
        self.images = _KEPT * self.images + images
        self.squares = _KEPT * self.squares + images * images
        self.took_ms = _KEPT * self.took_ms + took_ms
        self.products = _KEPT * self.products + images * took_ms
        self.recent = True

    def line(self, described_call_ms: float) -> Line:
        """Fit a line without negative parts; with one batch size, from the described time of a call."""
        images, took_ms = self.images / self.calls, self.took_ms / self.calls
        variance = self.squares / self.calls - images**2
        if variance > _LEAST_SPREAD * images**2:
            image_ms = (self.products / self.calls - images * took_ms) / variance
            call_ms = took_ms - images * image_ms
        else:
            call_ms = described_call_ms
            image_ms = (took_ms - call_ms) / images
        if image_ms < 0:
            return Line(took_ms, 0.0)
        if call_ms < 0:
            return Line(0.0, took_ms / images)
        return Line(call_ms, image_ms)

    def scale(self, factor: float) -> None:
        self.doubts.clear()
        self.took_ms *= factor
        self.products *= factor


class Timings:
    """Times of calls by fragment: on all cores, and in one thread beside others.

    Only the newest calls count for much. Both kinds follow the batch size.
    """

    def __init__(self, call_ms: Callable[[str], float] = lambda _: 0.0) -> None:
        """Know nothing yet.

        Args:
            call_ms: Described fixed time of a call of a fragment, by hash.
        """
        self._call_ms = call_ms
        self._sums: OrderedDict[str, dict[bool, _Sums]] = OrderedDict()
        """By fragment, and whether it had all cores; the most recently run comes last."""

    def add(self, fragment: str, images: int, took_ms: float, *, all_cores: bool = False) -> None:
        """Note a call."""
        modes = self._sums.setdefault(fragment, {})
        self._sums.move_to_end(fragment)
        modes.setdefault(all_cores, _Sums()).add(images, took_ms, self._call_ms(fragment))
        if len(self._sums) > MAX_FRAGMENTS_LISTED:
            self._sums.popitem(last=False)

    def measured_again(self, factor: float) -> None:
        """Note that the node's speed was measured: what has not run since the last time follows the speed.

        Args:
            factor: Time of a call now against before.
        """
        for modes in self._sums.values():
            for sums in modes.values():
                if not sums.recent:
                    sums.scale(factor)
                sums.recent = False

    def line(self, fragment: str, gains: Gains = ONE_THREAD) -> Line | None:
        """Return the times of a call that runs alone; None before the first call.

        Args:
            fragment: Its hash.
            gains: What threads gain on this device: used where only calls beside others were measured.
        """
        modes = self._sums.get(fragment)
        if modes is None:
            return None
        if True in modes:
            return modes[True].line(self._call_ms(fragment))
        gain = max(1.0, gains.alone)
        beside = modes[False].line(self._call_ms(fragment) * gain)
        return Line(beside.call_ms / gain, beside.image_ms / gain)

    def gains(self, fragment: str, gains: Gains) -> Gains:
        """Return what threads gain on a fragment: as measured, else as on the reference network.

        Args:
            fragment: Its hash.
            gains: Those on the reference network.
        """
        modes = self._sums.get(fragment, {})
        if len(modes) < 2:  # noqa: PLR2004 - both kinds
            return gains
        images = modes[True].images / modes[True].calls
        alone_ms = modes[True].line(self._call_ms(fragment)).of(images)
        beside_ms = modes[False].line(self._call_ms(fragment)).of(images)
        alone = beside_ms / alone_ms if alone_ms > 0 else gains.alone
        return Gains(gains.threads, min(gains.threads, alone), gains.together, spinning=gains.spinning)

    def report(self, gains: Gains = ONE_THREAD) -> tuple[FragmentTiming, ...]:
        """Return the times of all fragments, for the vitals."""
        return tuple(
            FragmentTiming(
                fragment=fragment,
                milliseconds_per_call=min(_MOST_MS, line.call_ms),
                milliseconds_per_image=min(_MOST_MS, line.image_ms),
                together=_together(self.gains(fragment, gains)),
            )
            for fragment in self._sums
            if (line := self.line(fragment, gains)) is not None
        )


def _together(gains: Gains) -> float:
    return max(1.0, gains.together / max(1.0, gains.alone))
