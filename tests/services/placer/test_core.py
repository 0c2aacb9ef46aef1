import json

import pytest

from splitplace.messages.pieces import PieceRun
from splitplace.policies.placement import PlacementName, placement_policy
from splitplace.policies.placement.daso import LEAST_SAMPLES
from splitplace.policies.placement.loading import DemandLoading, NodeChange
from splitplace.policies.placement.loading_programme import Programme
from splitplace.policies.state import StateError
from splitplace.services.placer.core import PlacerCore, Placing
from splitplace.services.placer.hints import WARM_UP_TASK, loading_hints
from tests.support.examples import all_of, application, chain, fragment, node, sha, snapshot, three_ways
from tests.support.messages import decided, finished

APP = three_ways(image_ms=10)


def placer(policy: PlacementName = "earliest-finish") -> PlacerCore:
    made = PlacerCore(placement_policy(policy, seed=1))
    made.add_application(APP)
    return made


def made_of(placing: Placing | None) -> Placing:
    assert placing is not None
    return placing


def test_a_placement_names_nodes_work_micro_batch_and_prediction() -> None:
    made = placer()
    made.cluster(snapshot(node("a", speed=2, loaded=all_of(APP))), 0.0)
    placing = made_of(made.place(decided(), 0.0))
    placed = placing.placed
    assert (placed.task, placed.attempt, placed.variant, placed.policy) == (
        "c.t",
        1,
        "whole",
        "earliest-finish",
    )
    assert [(stage.stage, stage.node, stage.work_ms) for stage in placed.stages] == [("whole-0", "a", 30.0)]
    assert (placed.batch, placed.micro_batch) == (6, 4)
    assert placed.predicted_ms is not None
    assert placed.predicted_ms > 30.0
    assert placing.prepare == ()  # it has loaded what it needs


def test_nodes_that_have_not_loaded_a_fragment_are_told_to_prepare() -> None:
    made = placer()
    layers = [stage.fragment for stage in APP.variant("layer").stages]
    made.cluster(snapshot(node("a", megabytes=2.5, loaded=[layers[0]]), node("b", megabytes=1.5)), 0.0)
    placing = made_of(made.place(decided(variant="layer", batch=8), 0.0))
    nodes = {stage.stage: stage.node for stage in placing.placed.stages}
    assert set(nodes.values()) == {"a", "b"}
    for hint in placing.prepare:
        needed = [layers[index] for index in range(3) if nodes[f"layer-{index}"] == hint.node]
        assert list(hint.fragments) == [piece for piece in needed if piece != layers[0] or hint.node != "a"]
        assert (hint.task, hint.attempt) == ("c.t", 1)
    assert {hint.node for hint in placing.prepare} == {"a", "b"}


def test_the_ledger_spreads_tasks_that_come_between_two_snapshots() -> None:
    made = placer()
    made.cluster(snapshot(node("a", loaded=all_of(APP)), node("b", loaded=all_of(APP))), 0.0)
    nodes = [made_of(made.place(decided(f"c.{index}"), 0.0)).placed.stages[0].node for index in range(4)]
    assert nodes == ["a", "b", "a", "b"]
    for index in (0, 2):
        made.finished(finished(f"c.{index}"), 1.0)
    assert made_of(made.place(decided("c.next"), 1.0)).placed.stages[0].node == "a"


def test_a_message_that_comes_twice_gets_the_same_placement_and_counts_once() -> None:
    made = placer()
    made.cluster(snapshot(node("a", loaded=all_of(APP)), node("b", loaded=all_of(APP))), 0.0)
    first = made.place(decided(), 0.0)
    assert made.place(decided(), 5.0) == first
    assert made_of(made.place(decided("c.next"), 5.0)).placed.stages[0].node == "b"


def test_refused_older_and_finished_tasks_are_not_placed() -> None:
    made = placer()
    made.cluster(snapshot(node("a")), 0.0)
    assert made.place(decided("c.refused", variant=None), 0.0) is None
    assert made_of(made.place(decided(attempt=2), 0.0)).placed.attempt == 2
    assert made.place(decided(attempt=1), 0.0) is None
    assert made_of(made.place(decided(attempt=3, avoid=("a",)), 0.0)).placed.stages  # nobody else is there
    made.finished(finished(attempt=3), 1.0)
    assert made.place(decided(attempt=4), 2.0) is None
    made.finished(finished("c.overtaken"), 3.0)  # the end was heard before the decision
    assert made.place(decided("c.overtaken"), 4.0) is None


@pytest.mark.parametrize("policy", ["earliest-finish", "random"])
def test_where_nothing_is_feasible_the_stages_are_empty_and_the_reason_says_why(
    policy: PlacementName,
) -> None:
    made = placer(policy)
    unknown = made_of(made.place(decided("c.0"), 0.0))
    assert unknown.placed.stages == ()
    assert unknown.prepare == ()
    assert unknown.placed.reason == "the state of the cluster is not known yet"
    made.cluster(snapshot(node("a", megabytes=1)), 0.0)
    assert "the largest node (a) has 0.954 MiB" in made_of(made.place(decided("c.1"), 0.0)).placed.reason


def test_what_is_not_in_the_catalogue_cannot_be_placed() -> None:
    made = placer()
    made.cluster(snapshot(node("a")), 0.0)
    for missing in (decided("c.1", application="other"), decided("c.2", variant="other")):
        placing = made_of(made.place(missing, 0.0))
        assert placing.placed.stages == ()
        assert "is not known" in placing.placed.reason


def test_random_placement_is_an_option() -> None:
    made = placer("random")
    made.cluster(snapshot(*(node(name, loaded=[sha("x")]) for name in "abcdef")), 0.0)
    nodes = {made_of(made.place(decided(f"c.{index}"), 0.0)).placed.stages[0].node for index in range(40)}
    assert nodes == set("abcdef")


def test_a_removed_application_is_not_loaded_ahead_until_it_comes_back() -> None:
    made = placer()
    made.remove_application(APP.name)
    assert made.cluster(snapshot(node("a")), 0.0) == []
    made_of(made.place(decided(), 1.0))  # a task that was decided before
    made.add_application(APP)
    assert {hint.node for hint in made.cluster(snapshot(node("a"), node("b")), 2.0)} == {"b"}


def test_nodes_warm_up_once_when_they_or_an_application_are_new() -> None:
    made = PlacerCore(placement_policy("earliest-finish"))
    assert made.add_application(APP) == []
    hints = made.cluster(snapshot(node("a"), node("b")), 0.0)
    assert [(hint.node, set(hint.fragments)) for hint in hints] == [(name, set(all_of(APP))) for name in "ab"]
    assert made.cluster(snapshot(node("a"), node("b")), 500.0) == []
    assert [hint.node for hint in made.cluster(snapshot(node("a", boot=1), node("b")), 1000.0)] == ["a"]
    assert made.add_application(APP) == []
    other = APP.model_copy(update={"name": "other"})
    assert {hint.node for hint in made.add_application(other)} == {"a", "b"}


def test_warming_up_can_be_switched_off() -> None:
    made = PlacerCore(placement_policy("earliest-finish"), warm_up=False)
    made.add_application(APP)
    assert made.cluster(snapshot(node("a")), 0.0) == []


def test_without_loading_by_demand_there_is_nothing_to_plan() -> None:
    made = placer()
    made.cluster(snapshot(node("a", megabytes=4)), 0.0)
    made_of(made.place(decided(), 1.0))
    assert made.plan_loading(2.0) is None


def test_what_is_asked_for_takes_the_place_of_what_is_not() -> None:
    made = PlacerCore(placement_policy("earliest-finish"), loading=DemandLoading(1000.0))
    other = fragment("other", megabytes=3)
    for each in (APP, application([other], [chain("whole", [other])], name="other")):
        made.add_application(each)
    made.cluster(snapshot(node("a", megabytes=3.5, loaded=[other.sha256])), 0.0)
    assert made.plan_loading(0.0) is None  # nothing was asked yet
    for number in range(50):
        made.place(decided(f"c.{number}", variant=None), 0.0)  # refused ones are asked for as well
    solve = made.plan_loading(1.0)
    assert solve is not None
    (hint,) = solve()()
    assert (hint.node, hint.task, hint.when_idle) == ("a", WARM_UP_TASK, True)
    assert set(hint.fragments) <= set(all_of(APP))
    assert hint.gives_way == (other.sha256,)


def test_a_plan_that_was_not_found_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = PlacerCore(placement_policy("earliest-finish"), loading=DemandLoading(1000.0))
    made.add_application(APP)
    made.cluster(snapshot(node("a", megabytes=3.5)), 0.0)
    made.place(decided(), 0.0)
    monkeypatch.setattr(Programme, "solve", lambda _: None)
    solve = made.plan_loading(1.0)
    assert solve is not None
    assert solve()() == []


def test_hints_for_runs_of_pieces_name_their_application() -> None:
    run = PieceRun(chain="net", first=0, end=3)
    change = NodeChange("a", (sha("x"), sha("y")), (sha("z"),), {sha("y"): ("toy", run)})
    described, derived = loading_hints([change])
    assert (described.fragments, described.application, described.runs) == ((sha("x"),), None, ())
    assert (derived.fragments, derived.application, derived.runs) == ((sha("y"),), "toy", (run,))
    assert described.gives_way == derived.gives_way == (sha("z"),)


def test_a_state_is_restored_only_by_the_policy_that_wrote_it() -> None:
    daso, gobi = placer("daso"), placer("gobi")
    before = gobi.state()
    gobi.restore(daso.state())
    assert gobi.state() == before
    changed = json.loads(json.dumps(daso.state()))
    changed["learnt"]["b4"] = [7.0]
    daso.restore(changed)
    assert daso.state() == changed
    with pytest.raises(StateError):
        daso.restore({"policy": "daso", "learnt": None})
    with pytest.raises(StateError):
        daso.restore({"policy": "daso", "learnt": {}})


def test_an_interval_tells_the_policy_of_the_tasks_that_left_in_it() -> None:
    made = placer("daso")
    made.cluster(snapshot(node("a", loaded=all_of(APP))), 0.0)
    assert made.end_period() is None
    for number in range(LEAST_SAMPLES):
        made.place(decided(f"c.{number}"), 0.0)
        made.finished(finished(f"c.{number}"), 1.0)
    training = made.end_period()
    assert training is not None
    before = made.state()
    training()()
    assert made.state() != before
    assert made.end_period() is None


def test_a_shared_stage_is_placed_once_for_each_of_its_replicas_which_all_prepare() -> None:
    made = PlacerCore(placement_policy("earliest-finish", replicas=2))
    made.add_application(APP)
    made.cluster(snapshot(node("a", loaded=all_of(APP)), node("b")), 0.0)
    placing = made_of(made.place(decided(batch=32), 0.0))
    shares = {stage.node: stage.micro_batches for stage in placing.placed.stages}
    assert shares == {"a": (0, 1, 3, 5, 7), "b": (2, 4, 6)}  # b has to load the fragment first
    assert placing.placed.micro_batch * 8 == placing.placed.batch
    assert [hint.node for hint in placing.prepare] == ["b"]
    assert placing.placed.reason == "8 micro-batches on a, b"
    again = made_of(made.place(decided(batch=32), 5.0))
    assert again.placed == placing.placed


def test_the_next_attempt_stands_without_the_replica_that_failed() -> None:
    made = PlacerCore(placement_policy("earliest-finish", replicas=2))
    made.add_application(APP)
    made.cluster(snapshot(*(node(name, loaded=all_of(APP)) for name in "abc")), 0.0)
    first = made_of(made.place(decided(batch=32), 0.0))
    assert set(first.placed.nodes) == {"a", "b"}
    second = made_of(made.place(decided(batch=32, attempt=2, avoid=("a",)), 1.0))
    assert set(second.placed.nodes) == {"b", "c"}
