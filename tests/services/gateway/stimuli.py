"""Stimuli for the gateway's core and journal, about a task of the example application `tiny`."""

import inspect
from collections.abc import Iterable

import numpy as np

from splitplace.messages.cluster import StageFailure
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import ClassScore, TaskDecided, TaskPlaced, TaskResult, VariantEstimate
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.instructions import Instruction
from splitplace.services.gateway.journal import Entry, ReplyTo
from splitplace.services.gateway.task import NewTask

BOOT = "0" * 16
OTHER_BOOT = "1" * 16
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

NAMES = tuple(
    name
    for name, method in inspect.getmembers(GatewayCore, inspect.isfunction)
    if not name.startswith("_") and inspect.signature(method).return_annotation == list[Instruction]
)
"""The methods of the core that answer a stimulus with instructions."""


def task(key: str = "camera.1", deadline_ms: float = 1000.0, batch: int = 2) -> NewTask:
    return NewTask(key, "tiny", batch, 32, deadline_ms, accepted_at_ms=0.0)


def decided(
    attempt: int = 1,
    variant: str | None = "whole",
    key: str = "camera.1",
    all_ms: tuple[float | None, ...] = (),
) -> TaskDecided:
    """A decision among arms that are predicted to take these times."""
    return TaskDecided(
        task=key,
        attempt=attempt,
        application="tiny",
        batch=2,
        slack_ms=900.0,
        policy="rule",
        variant=variant,
        reason="because",
        predicted_ms=10.0,
        alternatives=tuple(
            VariantEstimate(variant=f"v{index}", kind="layer", accuracy=0.9, predicted_ms=arm_ms, note="")
            for index, arm_ms in enumerate(all_ms)
        ),
    )


def placed(attempt: int = 1, nodes: tuple[str, ...] = ("n1",), key: str = "camera.1") -> TaskPlaced:
    return TaskPlaced(
        task=key,
        attempt=attempt,
        application="tiny",
        variant="whole",
        batch=2,
        micro_batch=2,
        policy="earliest-finish",
        stages=tuple(
            StagePlacement(stage=f"s{index}", node=node, work_ms=1.0) for index, node in enumerate(nodes)
        ),
        predicted_ms=10.0,
        reason="" if nodes else "no node has the memory",
    )


def result(attempt: int = 1, key: str = "camera.1", batch: int = 2) -> TaskResult:
    return TaskResult(
        task=key,
        attempt=attempt,
        application="tiny",
        variant="whole",
        scores=tuple(ClassScore(index=1, confidence=0.9) for _ in range(batch)),
        stages=(),
        micro_batches=1,
        moved_bytes=0,
    )


def part(attempt: int, key: str) -> TaskResult:
    return result(attempt, key).model_copy(update={"variant": "semantic", "coverage": 0.5})


def star(attempt: int = 1, nodes: tuple[str, ...] = ("n1", "n2"), key: str = "camera.1") -> TaskPlaced:
    """The branches `left` and `right` of the example application."""
    made = placed(attempt, nodes, key)
    stages = tuple(
        stage.model_copy(update={"stage": name})
        for stage, name in zip(made.stages, ("left", "right"), strict=False)
    )
    return made.model_copy(update={"variant": "semantic", "stages": stages})


def failure(node: str = "n1", attempt: int = 1, key: str = "camera.1") -> StageFailure:
    return StageFailure(node=node, task=key, attempt=attempt, stage="s0", kind="memory", reason="too big")


def kinds(instructions: Iterable[Instruction]) -> list[str]:
    return [type(instruction).__name__ for instruction in instructions]


def entry(number: int = 1, labels: tuple[int, ...] | None = (3, 1)) -> Entry:
    """A journalled task."""
    return Entry(
        key=f"camera.{number}",
        client="camera",
        task=str(number),
        application="digits",
        deadline_ms=250.0,
        accepted_unix_s=1e9 + number,
        attempt=1,
        inputs=np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2),
        labels=labels,
        reply=ReplyTo("home/answers", b"42", packed=True, traceparent=TRACEPARENT),
    )
