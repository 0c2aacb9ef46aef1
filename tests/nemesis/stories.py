"""Short histories, written by hand."""

from collections.abc import Sequence
from typing import Any

from nemesis.history import (
    Acknowledged,
    FaultBegan,
    FaultHealed,
    Heard,
    JournalRow,
    Record,
    Sent,
)

TASK = "s.t1"


def sent(at_s: float = 10.0, **changes: Any) -> Sent:
    """A task of one input with a deadline of one second."""
    fields: dict[str, Any] = {
        "task": TASK,
        "application": "mnist",
        "form": "png/topic",
        "inputs": (3,),
        "deadline_ms": 1000.0,
    }
    return Sent(at_s=at_s, **(fields | changes))


def heard(at_s: float = 10.5, **changes: Any) -> Heard:
    """The right answer to it."""
    fields: dict[str, Any] = {
        "task": TASK,
        "status": "answered",
        "decision": "whole",
        "classes": (7,),
        "confidences": (0.9,),
        "digest": "one",
    }
    return Heard(at_s=at_s, **(fields | changes))


def acknowledged(at_s: float = 10.1) -> Acknowledged:
    return Acknowledged(at_s=at_s, task=TASK)


def row(status: str | None = "answered", *, delivered: bool = True) -> JournalRow:
    return JournalRow(at_s=60.0, task=TASK, status=status, delivered=delivered)


def fault(began_s: float, healed_s: float, *targets: str, name: str = "kill:kill") -> Sequence[Record]:
    number = int(began_s * 1000)
    return (
        FaultBegan(at_s=began_s, number=number, fault=name, targets=targets),
        FaultHealed(at_s=healed_s, number=number),
    )
