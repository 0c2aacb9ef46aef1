"""Hands outputs to a core of the result aggregator."""

from typing import Any

from numpy.typing import NDArray

from splitplace.messages.frames import TensorHeader
from splitplace.messages.task import TaskResult
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.merging import condense
from tests.support.outputs import logits_application, placed_as

Output = tuple[TensorHeader, NDArray[Any]]


def knowing() -> ResultAggregatorCore:
    """A core that knows the application of `tests.support.outputs`."""
    aggregation = ResultAggregatorCore()
    aggregation.add_application(logits_application(), 0.0)
    return aggregation


def add(
    aggregation: ResultAggregatorCore, output: Output, now_ms: float = 0.0, **changes: object
) -> TaskResult | None:
    """Add an output of a task that was placed as `placed_as` says. `changes` replace header fields."""
    header, logits = output
    attempt = changes.get("attempt", header.attempt)
    aggregation.place(placed_as(header.model_copy(update={"attempt": attempt})), now_ms)
    changed = TensorHeader.model_validate(dict(header) | changes)
    return aggregation.add(changed, condense(logits), now_ms)


def add_all(aggregation: ResultAggregatorCore, outputs: list[Output]) -> list[TaskResult]:
    results = [add(aggregation, output) for output in outputs]
    return [result for result in results if result is not None]
