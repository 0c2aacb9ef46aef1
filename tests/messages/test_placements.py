"""A placement says for each micro-batch which node runs each stage, and says it once."""

from typing import Any

import pytest
from pydantic import ValidationError

from splitplace.messages.limits import MAX_CONTROL_BYTES, MAX_DEALT, MAX_PLACED, MAX_REPLICAS, MAX_STAGES
from splitplace.messages.task import TaskPlaced

Share = tuple[str, str, tuple[int, ...] | None]


def placed(*shares: Share, batch: int = 8, micro_batch: int = 2) -> TaskPlaced:
    """A placement of stages, nodes and micro-batches, as it comes over the wire."""
    fields: dict[str, Any] = {
        "task": "c.t",
        "attempt": 1,
        "application": "toy",
        "variant": "layer",
        "batch": batch,
        "micro_batch": micro_batch,
        "policy": "earliest-finish",
        "stages": tuple(
            {"stage": stage, "node": node, "work_ms": 1.0, "micro_batches": numbers}
            for stage, node, numbers in shares
        ),
        "predicted_ms": None,
        "reason": "",
    }
    return TaskPlaced.model_validate(fields)


def test_every_micro_batch_has_a_path() -> None:
    spread = placed(("front", "a", (0, 1, 3)), ("front", "b", (2,)), ("back", "c", None))
    assert spread.paths() == [{"front": node, "back": "c"} for node in "aaba"]
    assert spread.nodes == ("a", "b", "c")
    assert spread.runs("front", 2, "b")
    assert not spread.runs("front", 2, "a")
    assert spread.runs("back", 3, "c")
    assert not spread.runs("middle", 0, "c")


def test_without_replicas_all_micro_batches_go_the_same_way() -> None:
    simple = placed(("front", "a", None), ("back", "a", None), batch=7)
    assert list(simple.paths()) == [{"front": "a", "back": "a"}] * 4


@pytest.mark.parametrize(
    "shares",
    [
        [("s", "a", None), ("s", "b", None)],
        [("s", "a", None), ("s", "b", (0, 1, 2, 3))],
        [("s", "a", (0, 1)), ("s", "b", (2,))],
        [("s", "a", (0, 1, 2)), ("s", "b", (2, 3))],
        [("s", "a", (0, 1, 2, 3)), ("s", "b", (4,))],
        [("s", "a", (0, 1)), ("s", "a", (2, 3))],
        [("s", "a", (0, 1, 2, 3)), ("s", "b", ())],
        [("s", "a", (0, 1, 2, -1)), ("s", "b", (3,))],
    ],
)
def test_replicas_that_do_not_share_each_micro_batch_once_are_refused(shares: list[Share]) -> None:
    with pytest.raises(ValidationError):
        placed(*shares)


def test_no_more_replicas_than_allowed() -> None:
    def shares(count: int) -> list[Share]:
        return [("s", f"n{number}", (number,)) for number in range(count)]

    assert len(placed(*shares(MAX_REPLICAS), batch=MAX_REPLICAS, micro_batch=1).stages) == MAX_REPLICAS
    with pytest.raises(ValidationError, match="replicas"):
        placed(*shares(MAX_REPLICAS + 1), batch=MAX_REPLICAS + 1, micro_batch=1)


def test_the_greatest_placement_fits_a_message() -> None:
    replicas = MAX_PLACED // MAX_STAGES
    name = "n" * 62
    greatest = placed(
        *(
            ("s" * 61 + f"{stage:03}", f"{name}{replica:02}", tuple(range(replica, MAX_DEALT, replicas)))
            for stage in range(MAX_STAGES)
            for replica in range(replicas)
        ),
        batch=MAX_DEALT,
        micro_batch=1,
    )
    assert len(greatest.model_dump_json()) < MAX_CONTROL_BYTES
