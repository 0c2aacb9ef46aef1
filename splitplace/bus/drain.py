"""For how long messages may have waited at the broker before they are read. Pure.

A message says nothing about its age. But while a reader always finds more to read, or the broker waits for
acknowledgements, what it reads may have come when that began.
"""

_LEAST_WINDOW = 20
"""No broker waits for acknowledgements of fewer messages."""


class Drain:
    """Whether everything was read that had come, and since when not."""

    def __init__(self, window: int) -> None:
        """A connection on which nothing has come.

        Args:
            window: unacknowledged messages that the broker may send. It may send fewer.
        """
        self._window = window
        self._most = _LEAST_WINDOW
        self._since_ms: float | None = None

    def read(self, unacknowledged: int, now_ms: float) -> float:
        """Note a message, and return since when it may have waited.

        Args:
            unacknowledged: messages that were sent and not acknowledged, with this one.
            now_ms: the present moment.
        """
        self._most = max(self._most, min(unacknowledged, self._window))
        if self._since_ms is None:
            self._since_ms = now_ms
        return self._since_ms

    def ended(self, unacknowledged: int, *, is_empty: bool) -> None:
        """A turn of reading has ended.

        Args:
            unacknowledged: as in `read`.
            is_empty: whether nothing more had come.
        """
        if is_empty and unacknowledged < self._most:
            self._since_ms = None
