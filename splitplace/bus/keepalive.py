"""How long a connection may be silent. Pure: no clock."""

MAX_KEEPALIVE_S = 30
"""Longest keepalive that silence leads to."""
BRIEF_S = 60.0
"""Two connections in a row that silence ended within this time: the link is slow, and the other end alive."""


class Keepalive:
    """The keepalive of the next connection. Doubles when silence keeps ending connections.

    A saturated link delays pings, and a connection that it costs has to send everything again. One silence
    alone may be a pause of the process or a cable that was pulled, and changes nothing. A connection that
    lasts ends the doubling, for the one after it.
    """

    def __init__(self, usual_s: int) -> None:
        """Begin with the keepalive of good links, in seconds."""
        self.next_s = usual_s
        self._usual_s = usual_s
        self._brief = 0

    def broke(self, held_s: float) -> None:
        """Note a connection that silence has ended after this time."""
        if held_s >= BRIEF_S + self.next_s:
            self.next_s, self._brief = self._usual_s, 0
            return
        self._brief += 1
        if self._brief >= 2:  # noqa: PLR2004 - see `BRIEF_S`
            self.next_s = max(self._usual_s, min(2 * self.next_s, MAX_KEEPALIVE_S))
