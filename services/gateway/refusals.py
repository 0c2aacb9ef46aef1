"""Why a task was not accepted."""

from dataclasses import dataclass
from typing import Literal, NoReturn

from splitplace.errors import SplitPlaceError

RefusalKind = Literal[
    "unknown-application",
    "too-large",
    "malformed",
    "bad-name",
    "bad-deadline",
    "bad-shape",
    "bad-dtype",
    "bad-labels",
    "bad-picture",
    "bad-sound",
    "empty-batch",
    "oversized-batch",
    "retained",
    "reused-id",
    "not-ready",
    "overloaded",
    "quota",
    "poison",
    "journal",
]

TRY_AGAIN: tuple[RefusalKind, ...] = ("not-ready", "overloaded", "quota", "poison", "journal", "reused-id")
"""Refusals of tasks that may be valid, answered `refused`; all others are answered `invalid`."""


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """Names of the sender and of the task."""

    client: str
    task: str


class TaskRefusedError(SplitPlaceError):
    """A task is refused. `kind` counts it, `reason` tells its sender what to fix."""

    def __init__(self, kind: RefusalKind, reason: str, identity: TaskIdentity | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.identity = identity
        """Names in a body that is not valid otherwise; None where they are those of the topic."""


def refuse(kind: RefusalKind, reason: str, identity: TaskIdentity | None = None) -> NoReturn:
    """Raise a refusal. The reason is cut to what an answer holds."""
    raise TaskRefusedError(kind, reason[:900], identity)
