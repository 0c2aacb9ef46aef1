"""What is computed only when somebody asks: the types, without the simulator and policies that make them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """An estimate with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReplayView:
    """What another policy would have earned on the same tasks, judged by replay."""

    policy: str
    tasks: int
    logged: Span | None = None
    """Mean reward of what was decided."""
    other: Span | None = None
    """That of the other policy, doubly robust."""
    gain: Span | None = None
    agreement: float | None = None
    why_not: str = ""
    """Why the tasks say nothing about it; empty if they do."""


@dataclass(frozen=True, slots=True)
class OtherDeadline:
    """What would be chosen with a deadline."""

    deadline_ms: float
    variant: str | None
    """None: the task would be refused."""
    stages: int | None
    predicted_ms: float | None
    note: str
    """Where it would run."""
    reason: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is changed; empty = as it is."""

    remove: str = ""
    """A node."""
    add: str = ""
    """A kind of node."""
    policy: str = ""
    deadline_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation predicts."""

    nodes: str
    hit_rate: Span
    p50_ms: Span | None
    p95_ms: Span | None
    reward: float
    decisions: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The same tasks as they went, simulated as it is, and with the change."""

    tasks: int
    minutes: float
    actual_hit_rate: float
    unchanged: Outcome
    changed: Outcome
    measured_on: str
    """What the calibration was made on."""
    sentence: str
