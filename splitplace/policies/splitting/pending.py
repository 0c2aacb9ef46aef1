"""What a policy noted of a decision until its outcome comes: nothing is recomputed then."""

from collections import OrderedDict
from typing import Generic, TypeVar

MAX_PENDING = 10_000
"""Beyond it, the note on the oldest decision is forgotten; its outcome then teaches nothing."""

Note = TypeVar("Note")


class Pending(Generic[Note]):
    """Notes by task. A later attempt at a task replaces the note on the earlier one."""

    def __init__(self) -> None:
        self._notes: OrderedDict[str, Note] = OrderedDict()

    def put(self, task: str, note: Note) -> None:
        """Keep a note until its task ends."""
        self._notes.pop(task, None)
        self._notes[task] = note
        if len(self._notes) > MAX_PENDING:
            self._notes.popitem(last=False)

    def take(self, task: str) -> Note | None:
        """The note on a task, which is then forgotten; None where there is none."""
        return self._notes.pop(task, None)
