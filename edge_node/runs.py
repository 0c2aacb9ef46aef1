"""Fragments that no manifest describes: runs of pieces that were grouped for a task. Pure."""

from collections import OrderedDict

from splitplace.messages.application import Application, Fragment
from splitplace.messages.groupings import GroupingError, derived_fragment
from splitplace.messages.pieces import PieceRun

MAX_RUNS = 1024
"""Runs that are remembered."""


class Runs:
    """Application and pieces by the fragment's hash, as routes and hints name them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, PieceRun]] = OrderedDict()

    def add(self, sha256: str, application: str, run: PieceRun) -> str | None:
        """Note a run. Return the hash of the one that it pushed out, if any."""
        self._known[sha256] = application, run
        self._known.move_to_end(sha256)
        return self._known.popitem(last=False)[0] if len(self._known) > MAX_RUNS else None

    def application(self, sha256: str) -> str | None:
        """Return the name of the application of a run; None if the run is not known."""
        known = self._known.get(sha256)
        return None if known is None else known[0]

    def derive(self, sha256: str, application: Application) -> Fragment | None:
        """Describe a known run; None if the application has no such pieces, or they have another hash."""
        _, run = self._known[sha256]
        try:
            fragment = derived_fragment(application, run)
        except GroupingError:
            return None
        return fragment if fragment.sha256 == sha256 else None
