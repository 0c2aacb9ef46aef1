"""How much smaller compression makes the outputs of each fragment. Pure."""

from collections import OrderedDict

from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FragmentTiming

_KEPT = 0.9
"""Weight of all outputs before the newest one."""


class OutputRatios:
    """Encoded over raw bytes of outputs: the ratio of decayed sums, by fragment."""

    def __init__(self) -> None:
        self._sums: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, fragment: str, encoded_bytes: int, raw_bytes: int) -> None:
        """Note an output."""
        encoded, raw = self._sums.pop(fragment, (0.0, 0.0))
        self._sums[fragment] = (_KEPT * encoded + encoded_bytes, _KEPT * raw + raw_bytes)
        if len(self._sums) > MAX_FRAGMENTS_LISTED:
            self._sums.popitem(last=False)

    def ratio(self, fragment: str) -> float | None:
        """Return the ratio, at most 1; None before the first output."""
        encoded, raw = self._sums.get(fragment, (0.0, 0.0))
        return min(1.0, encoded / raw) if raw else None

    def added_to(self, timings: tuple[FragmentTiming, ...]) -> tuple[FragmentTiming, ...]:
        """Return what a node reports of fragments, with their ratios."""
        return tuple(
            timing.model_copy(update={"output_ratio": self.ratio(timing.fragment)}) for timing in timings
        )
