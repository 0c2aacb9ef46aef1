"""`splitplace watch` says in words what happens, marks what went wrong, and draws the path of a task."""

from collections.abc import Sequence
from typing import Any

import pytest

from splitplace.commands.shared.task_path import arrows, path_lines
from splitplace.commands.watch.observation import Observation
from splitplace.commands.watch.words import Teller, is_named
from splitplace.messages.base import Message
from splitplace.messages.cluster import ClusterState, ServiceStatus, StageFailure
from splitplace.messages.metrics import RefusalMetrics
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import StageReport, TaskPlaced
from tests.support.examples import node
from tests.support.message_examples import application
from tests.support.messages import accepted, decided, finished

KEY = "camera.t1.0123abcd"
DIGITS: dict[str, Any] = {"task": KEY, "application": "digits"}
CHAIN = (("front", "pi-1"), ("back", "pi-2"))
STAR = (("left", "pi-1"), ("right", "pi-2"))


def placed(variant: str, stages: Sequence[tuple[str, str]], attempt: int = 1) -> TaskPlaced:
    return TaskPlaced(
        **DIGITS,
        attempt=attempt,
        variant=variant,
        batch=6,
        micro_batch=6,
        policy="earliest-finish",
        stages=tuple(StagePlacement(stage=stage, node=name, work_ms=10.0) for stage, name in stages),
        predicted_ms=40.0,
        reason="soonest",
    )


def reports(stages: Sequence[tuple[str, str]]) -> tuple[StageReport, ...]:
    return tuple(StageReport(stage=stage, node=name, queue_ms=5.0, compute_ms=20.0) for stage, name in stages)


def said(*messages: Message) -> tuple[Observation, list[str]]:
    """What is told about these messages, one after the other."""
    seen = Observation()
    teller = Teller(seen)
    seen.apply(application())
    lines = []
    for message in messages:
        seen.apply(message)
        lines += teller.lines(message)
    return seen, lines


def test_an_answer_in_time_is_told_with_its_way_and_reason() -> None:
    chosen = decided(**DIGITS, variant="layer", reason="it is in time with probability .93")
    end = finished(**DIGITS, variant="layer", response_ms=100.0)
    _, lines = said(accepted(**DIGITS), chosen, placed("layer", CHAIN), end)
    way, *why = lines[0].split(". ")
    assert way == "in time: camera.t1, 6 x digits, layer on pi-1 → pi-2"
    assert why == ["Answered after 100 ms, 900 ms before its deadline", "“layer” was chosen."]


@pytest.mark.parametrize(
    ("end", "mark"),
    [
        ({"on_time": False, "response_ms": 1200.0}, "LATE: camera.t1, "),
        ({"status": "refused", "on_time": False, "reason": "no node has 6 MB"}, "REFUSED: camera.t1, "),
        ({"status": "expired", "on_time": False}, "EXPIRED: camera.t1, "),
        ({"status": "failed", "on_time": False}, "FAILED: camera.t1, "),
    ],
)
def test_what_did_not_go_well_is_marked_in_capitals(end: dict[str, Any], mark: str) -> None:
    _, (line,) = said(accepted(**DIGITS), finished(**DIGITS, **end))
    assert line.startswith(mark)
    assert str(end.get("reason", "")) in line


def test_a_second_end_of_a_task_is_not_told_again() -> None:
    end = finished(**DIGITS)
    _, lines = said(accepted(**DIGITS), end, end.model_copy())
    assert len(lines) == 1


def test_a_failed_stage_is_told_with_its_reason() -> None:
    failure = StageFailure(
        node="pi-1", task=KEY, attempt=1, stage="front", kind="memory", reason="the budget is used up"
    )
    _, (line,) = said(failure)
    assert "stage front failed on pi-1: the budget is used up" in line


def test_nodes_that_come_go_and_stall_are_told_once() -> None:
    def state(number: int, **changes: object) -> ClusterState:
        return ClusterState(sequence=number, nodes=(node("pi-1").model_copy(update=changes),))

    _, lines = said(state(1), state(2), state(3, stalled=True), state(4, online=False), state(5))
    assert [line.partition(":")[0] for line in lines] == [
        "node pi-1 is there",
        "node pi-1 makes no progress",
        "node pi-1 is gone",
        "node pi-1 is there",
    ]


def test_a_node_that_is_no_longer_listed_is_gone() -> None:
    _, lines = said(ClusterState(sequence=1, nodes=(node("pi-1"),)), ClusterState(sequence=2, nodes=()))
    assert lines[1] == "node pi-1 is gone: its open tasks move to other nodes"


def test_services_that_come_and_go_are_told() -> None:
    def status(*, online: bool) -> ServiceStatus:
        return ServiceStatus(service="placer", boot="a" * 16, online=online, software="test")

    _, lines = said(status(online=True), status(online=True), status(online=False))
    assert lines == ["service placer is there", "service placer is gone"]


def test_refusals_at_intake_are_told_from_the_second_figure_on() -> None:
    _, lines = said(*(RefusalMetrics(reason="overload", count=count) for count in (7, 7, 9)))
    assert lines == ["REFUSED at intake: 2 more tasks (overload)"]


@pytest.mark.parametrize("name", [KEY, "camera.t1", "t1", "camera.*"])
def test_a_task_may_be_named_by_key_by_sensor_and_id_or_by_id(name: str) -> None:
    assert is_named(KEY, name)
    assert not is_named("door.t11.0123abcd", name)


def test_a_task_may_be_named_as_its_sender_wrote_it() -> None:
    assert is_named("k~C3~BCche.t1.0123abcd", "küche.t1")


def test_branches_are_joined_by_plus_and_a_chain_by_arrows() -> None:
    for variant, stages, way in (("layer", CHAIN, "pi-1 → pi-2"), ("semantic", STAR, "pi-1 + pi-2")):
        seen, _ = said(accepted(**DIGITS), placed(variant, stages))
        assert arrows(seen.records[KEY], application()) == way


def test_without_a_placement_there_is_no_way() -> None:
    seen, _ = said(accepted(**DIGITS))
    assert arrows(seen.records[KEY], application()) == ""


def test_the_stages_of_a_chain_go_down_like_stairs_along_the_time() -> None:
    end = finished(**DIGITS, variant="layer", stages=reports(CHAIN), deadline_ms=100.0, response_ms=60.0)
    seen, _ = said(accepted(**DIGITS), placed("layer", CHAIN), end)
    title, first, second, last = path_lines(seen.records[KEY], application())
    assert title.startswith("camera.t1.0123abcd: 6 x digits, due within 100 ms")
    assert first.startswith("  └▶ front on pi-1")
    assert second.startswith("     └▶ back on pi-2")
    assert first.index("░") < first.index("█") < second.index("░") < second.index("█") < second.index("|")
    assert last == "  ✓ answered in time: 60 of 100 ms"


def test_branches_stand_side_by_side() -> None:
    end = finished(**DIGITS, variant="semantic", stages=reports(STAR), deadline_ms=100.0, response_ms=60.0)
    seen, _ = said(accepted(**DIGITS), placed("semantic", STAR), end)
    _, first, second, _ = path_lines(seen.records[KEY], application())
    assert first.index("└") == second.index("└")
    assert first.index("█") == second.index("█")


def test_a_path_with_a_failed_attempt_shows_both() -> None:
    failure = StageFailure(
        node="pi-1", task=KEY, attempt=1, stage="front", kind="runtime", reason="it is gone"
    )
    seen, _ = said(
        accepted(**DIGITS),
        decided(**DIGITS, variant="layer", reason="first"),
        placed("layer", CHAIN),
        failure,
        decided(**DIGITS, variant="semantic", reason="second", attempt=2),
        placed("semantic", STAR, attempt=2),
    )
    lines = path_lines(seen.records[KEY], application())
    assert "  ✗ front on pi-1 failed: it is gone" in lines
    assert lines.index("attempt 2") < lines.index("  semantic: second")
    assert lines[-1] == "  … not answered yet"


def test_a_task_of_an_unknown_application_is_drawn_as_a_chain() -> None:
    seen, _ = said(accepted(**DIGITS), placed("layer", CHAIN))
    first, second = path_lines(seen.records[KEY], None)[1:3]
    assert first.index("└") < second.index("└")


def test_only_the_last_tasks_are_remembered_in_full() -> None:
    seen, _ = said(*(accepted(f"camera.t{number}.0123abcd") for number in range(2100)))
    assert len(seen.records) == 2000
    assert len(seen.accepted) == 2100
