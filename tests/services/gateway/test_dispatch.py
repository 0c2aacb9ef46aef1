"""Inputs go to the nodes of the placement, each micro-batch with a route of its own."""

import numpy as np
import pytest

from splitplace.messages.frames import Route, TensorHeader, decode_tensor, unpack
from splitplace.messages.groupings import grouped
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
from splitplace.services.gateway.dispatch import input_frames, routes
from tests.support.free_stages import free_application
from tests.support.outputs import logits_application

APP = logits_application()
INPUTS = np.arange(7 * 8, dtype=np.uint8).reshape(7, 8)


def placed(variant: str, *shares: tuple[str, str, tuple[int, ...] | None]) -> TaskPlaced:
    return TaskPlaced(
        task="c.t",
        attempt=1,
        application=APP.name,
        variant=variant,
        batch=len(INPUTS),
        micro_batch=2,
        policy="test",
        stages=tuple(
            StagePlacement(stage=stage, node=node, work_ms=1.0, micro_batches=numbers)
            for stage, node, numbers in shares
        ),
        predicted_ms=None,
        reason="",
    )


def sent(where: TaskPlaced) -> list[tuple[str, TensorHeader, np.ndarray]]:
    """Receiver, header and tensor of every frame."""
    frames = input_frames(APP, where, INPUTS, 1000.0, compress=False)
    unpacked = [(node, *unpack(TensorHeader, frame)) for node, frame in frames]
    return [(node, header, decode_tensor(header, body)) for node, header, body in unpacked]


def way(route: Route | None) -> list[str]:
    """The nodes of a chain."""
    return [route.node, *way(route.next[0] if route.next else None)] if route is not None else []


def test_each_micro_batch_goes_to_the_replica_that_it_was_dealt_to() -> None:
    where = placed("whole", ("whole", "a", (0, 1, 3)), ("whole", "b", (2,)))
    assert [node for node, _, _ in sent(where)] == ["a", "a", "b", "a"]
    for number, (node, header, tensor) in enumerate(sent(where)):
        assert (header.micro_batch, header.micro_batches, header.receiver) == (number, 4, node)
        assert np.array_equal(tensor, INPUTS[2 * number : 2 * number + 2])


def test_several_replicas_send_to_several_and_then_to_one() -> None:
    where = placed(
        "chain",
        *(("c0", "a", (0, 2)), ("c0", "b", (1, 3))),
        *(("c1", "b", (0,)), ("c1", "c", (1, 2, 3))),
        ("c2", "d", None),
    )
    assert [way(header.route) for _, header, _ in sent(where)] == [
        ["a", "b", "d"],
        ["b", "c", "d"],
        ["a", "c", "d"],
        ["b", "c", "d"],
    ]


def test_branches_have_replicas_of_their_own() -> None:
    where = placed("star", ("s0", "a", (0, 1)), ("s0", "b", (2, 3)), ("s1", "c", None))
    assert [node for node, _, _ in sent(where)] == ["a", "c", "a", "c", "b", "c", "b", "c"]


def test_a_repetition_sends_every_micro_batch_the_same_way() -> None:
    where = placed("whole", ("whole", "a", (0, 1, 3)), ("whole", "b", (2,)))
    first, again = (list(input_frames(APP, where, INPUTS, 1000.0, compress=False)) for _ in range(2))
    assert first == again


def test_a_stage_without_a_node_is_an_error() -> None:
    with pytest.raises(KeyError):
        sent(placed("chain", ("c0", "a", None), ("c1", "b", None)))


def test_routes_name_the_pieces_that_were_grouped_for_the_task() -> None:
    app = free_application(4)
    found = grouped(app, app.variant("layer"), [1])
    front, back = found.variant.stages
    (route,) = routes(found, {front.name: "a", back.name: "b"})
    (after,) = route.next
    assert (route.node, route.fragment, route.run) == ("a", front.fragment, found.runs[front.name])
    assert (after.node, after.fragment, after.run) == ("b", back.fragment, found.runs[back.name])
