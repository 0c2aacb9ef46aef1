"""The placer places what is overdue of a task a second time."""

import pytest

from splitplace.messages.placing import StagePlacement
from splitplace.messages.second_run import OverdueOutputs, SecondPart, TaskLagging
from splitplace.messages.task import TaskPlaced
from splitplace.policies.placement import placement_policy
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.services.placer.core import PlacerCore
from splitplace.services.placer.second_runs import SecondPlacing, place_again
from tests.support.examples import all_of, cluster, node, snapshot, three_ways
from tests.support.messages import decided, finished

APP = three_ways(image_ms=10)


def placer(
    *, second_runs: bool = True, names: str = "ab", loaded: bool = True, replicas: int = 1
) -> PlacerCore:
    """A placer that has placed a task of three micro-batches on node a."""
    made = PlacerCore(placement_policy("earliest-finish", replicas=replicas), second_runs=second_runs)
    made.add_application(APP)
    held = all_of(APP) if loaded else ()
    states = [node("a", speed=1.5, loaded=all_of(APP)), *(node(name, loaded=held) for name in names[1:])]
    made.cluster(snapshot(*states), 0.0)
    placing = made.place(decided(batch=10, slack_ms=5000.0), 0.0)
    assert placing is not None
    assert replicas > 1 or placing.placed.nodes == ("a",)
    return made


def lagging(
    attempt: int = 1, numbers: tuple[int, ...] = (1, 2), branches: tuple[str | None, ...] = (None,)
) -> TaskLagging:
    outputs = tuple(OverdueOutputs(branch=branch, micro_batches=numbers) for branch in branches)
    return TaskLagging(task="c.t", attempt=attempt, outputs=outputs)


def only_part(placing: SecondPlacing) -> SecondPart:
    (part,) = placing.second.parts
    return part


def made_of(placing: SecondPlacing | None) -> SecondPlacing:
    assert placing is not None
    return placing


def test_what_is_overdue_is_placed_on_another_node() -> None:
    placing = made_of(placer().lagging(lagging(), 100.0))
    second, part = placing.second, only_part(placing)
    assert (second.task, second.attempt, part.micro_batches) == ("c.t", 1, (1, 2))
    assert (part.placed.nodes, part.placed.batch, part.placed.micro_batch) == (("b",), 6, 4)
    assert part.placed.reason == "overdue on a"
    assert placing.prepare == ()


def branched(made: PlacerCore) -> dict[str, str]:
    """Place the next attempt in two branches. Returns the node of each."""
    placing = made.place(decided("c.t", attempt=2, variant="semantic", batch=10, slack_ms=5000.0), 0.0)
    assert placing is not None
    nodes = {share.stage: share.node for share in placing.placed.stages}
    assert len(set(nodes.values())) == len(nodes) == 2
    return nodes


def test_only_the_branch_that_is_overdue_is_placed_again() -> None:
    made = placer(names="abcd")
    nodes = branched(made)
    branch = next(iter(nodes))
    part = only_part(made_of(made.lagging(lagging(2, branches=(branch,)), 100.0)))
    (share,) = part.placed.stages
    assert share.stage == branch
    assert share.node != nodes[branch]
    assert part.placed.reason == f"overdue on {nodes[branch]}"


def test_branches_are_placed_one_after_the_other_so_they_share_what_is_free() -> None:
    made = placer(names="abcd")
    nodes = branched(made)
    parts = made_of(made.lagging(lagging(2, branches=tuple(nodes)), 100.0)).second.parts
    assert [part.placed.stages[0].stage for part in parts] == list(nodes)
    assert {part.placed.stages[0].node for part in parts} == {*"abcd"} - {*nodes.values()}


def test_a_repetition_gets_the_same_second_run() -> None:
    made = placer()
    assert made.lagging(lagging(), 100.0) is made.lagging(lagging(numbers=(2,)), 200.0)


def test_nodes_that_lack_the_fragment_are_told_to_prepare_it() -> None:
    (hint,) = made_of(placer(loaded=False).lagging(lagging(), 0.0)).prepare
    assert (hint.node, hint.task, hint.application) == ("b", "c.t", APP.name)


def test_both_runs_count_in_the_ledger() -> None:
    made = placer(names="abc")
    made.lagging(lagging(), 0.0)
    placing = made.place(decided("c.next", batch=10, slack_ms=5000.0), 0.0)
    assert placing is not None
    assert placing.placed.nodes == ("c",)


@pytest.mark.parametrize(
    "message", [lagging(attempt=2), lagging(numbers=(2, 3)), lagging().model_copy(update={"task": "c.other"})]
)
def test_what_was_not_placed_so_has_no_second_run(message: TaskLagging) -> None:
    assert placer().lagging(message, 100.0) is None


def test_a_task_that_has_ended_has_no_second_run() -> None:
    made = placer()
    made.finished(finished(), 50.0)
    assert made.lagging(lagging(), 100.0) is None


def test_nothing_runs_twice_where_that_is_switched_off() -> None:
    assert placer(second_runs=False).lagging(lagging(), 100.0) is None


def test_what_is_lost_runs_again_also_where_second_runs_are_switched_off() -> None:
    told = lagging().model_copy(update={"lost": "a"})
    second = made_of(placer(second_runs=False).lagging(told, 100.0)).second
    assert (second.lost, second.nodes) == ("a", ("b",))


def test_what_is_lost_with_a_replica_is_placed_on_any_other_node() -> None:
    """Also on the one that is busy with the same task, where nothing else is free."""
    made = placer(names="abc", replicas=3)
    placing = made.place(decided("c.t", attempt=2, batch=64, slack_ms=5000.0), 0.0)
    assert placing is not None
    assert {*placing.placed.nodes} == {*"abc"}
    lost = placing.placed.nodes[-1]
    numbers = next(share.micro_batches for share in placing.placed.stages if share.node == lost)
    assert numbers
    told = lagging(2, numbers)
    assert made.lagging(told, 10.0) is None, "not enough room for a second run of what is only overdue"
    second = made_of(made.lagging(told.model_copy(update={"lost": lost}), 10.0)).second
    (part,) = second.parts
    assert second.lost == lost
    assert part.micro_batches == numbers
    assert lost not in part.placed.nodes
    assert part.placed.reason == f"lost on {lost}"


def chain(queues: dict[str, float]) -> SecondPlacing | None:
    """Place again what is overdue of a chain that each of these nodes has a stage of."""
    stages = zip(APP.variant("layer").stages, queues, strict=True)
    first = TaskPlaced(
        task="c.t",
        attempt=1,
        application=APP.name,
        variant="layer",
        batch=10,
        micro_batch=4,
        policy="test",
        stages=tuple(StagePlacement(stage=stage.name, node=name, work_ms=1.0) for stage, name in stages),
        predicted_ms=100.0,
        reason="",
    )
    view = cluster(*(node(name, loaded=all_of(APP), queue_ms=queue_ms) for name, queue_ms in queues.items()))
    return place_again(
        APP, first, lagging(), EarliestFinish(), view, now_ms=0.0, due_ms=5000.0, avoid=frozenset()
    )


def test_a_chain_on_all_nodes_leaves_the_one_that_still_has_work() -> None:
    part = only_part(made_of(chain({"a": 0.0, "b": 400.0, "c": 0.0})))
    assert part.placed.reason == "overdue on b"
    assert "b" not in part.placed.nodes


@pytest.mark.parametrize("queue_ms", [0.0, 400.0])
def test_where_no_node_of_a_chain_stands_out_it_has_no_second_run(queue_ms: float) -> None:
    assert chain(dict.fromkeys("abc", queue_ms)) is None


def test_what_is_lost_and_cannot_be_in_time_is_left_to_the_next_attempt() -> None:
    told = lagging().model_copy(update={"lost": "a"})
    assert placer().lagging(told, 4990.0) is None


def test_nothing_runs_twice_without_another_node() -> None:
    assert placer(names="a").lagging(lagging(), 100.0) is None
