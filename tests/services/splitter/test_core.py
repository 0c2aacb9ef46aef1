import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskDecided, TaskPlaced
from splitplace.policies.correction import NEWEST_WEIGHT
from splitplace.policies.placement import placement_policy
from splitplace.policies.splitting import Decision, SplitContext, SplitName, split_policy
from splitplace.policies.splitting.fixed import Fixed
from splitplace.policies.state import Json, StateError
from splitplace.services.splitter.core import LAST_MOMENT_MS, MAX_ASKED_AGAIN, SplitterCore
from tests.support.examples import all_of, application, chain, fragment, job, node, snapshot, three_ways
from tests.support.messages import accepted, finished_after

APP = three_ways(image_ms=10)
"""Per image on one node: whole 10 ms, layer 3.3 ms a stage, semantic 2 ms a branch."""


def splitter(policy: SplitName = "rule", *apps: Application) -> SplitterCore:
    made = SplitterCore(split_policy(policy), placement_policy("earliest-finish"))
    made.add_applications(apps or (APP,))
    return made


def placed(decided: TaskDecided, node_name: str, work_ms: float) -> TaskPlaced:
    assert decided.variant
    stages = APP.variant(decided.variant).stages
    return TaskPlaced(
        task=decided.task,
        attempt=decided.attempt,
        application=decided.application,
        variant=decided.variant,
        batch=decided.batch,
        micro_batch=4,
        policy="test",
        stages=tuple(StagePlacement(stage=stage.name, node=node_name, work_ms=work_ms) for stage in stages),
        predicted_ms=1.0,
        reason="",
    )


def ready(name: str = "a", *, speed: float = 1.0, megabytes: float = 100.0) -> NodeState:
    """A node that has loaded everything."""
    return node(name, speed=speed, megabytes=megabytes, loaded=all_of(APP))


def one(decisions: list[TaskDecided]) -> TaskDecided:
    assert len(decisions) == 1
    return decisions[0]


def test_a_decision_names_its_reason_its_prediction_and_all_alternatives() -> None:
    made = splitter()
    made.cluster(snapshot(ready("a"), ready("b")), 0.0)
    decided = one(made.accepted(accepted(avoid=("z",)), 10.0))
    assert (decided.task, decided.attempt, decided.policy, decided.avoid) == ("c.t", 1, "rule", ("z",))
    assert decided.slack_ms == 1000.0
    assert decided.reason
    assert [arm.variant for arm in decided.alternatives] == ["whole", "layer", "semantic"]
    chosen = next(arm for arm in decided.alternatives if arm.variant == decided.variant)
    assert decided.predicted_ms == chosen.predicted_ms
    assert chosen.note.startswith("on ")


def test_a_decision_carries_the_context_in_which_it_was_taken() -> None:
    made = splitter("random")
    made.cluster(snapshot(ready("a"), node("b", loaded=all_of(APP), link=50.0)), 0.0)
    first = one(made.accepted(accepted("c.1", batch=10, deadline_ms=1000.0, slack_ms=990.0), 0.0))
    assert (first.deadline_ms, first.slack_ms, first.load_ms) == (1000.0, 990.0, 0.0)
    assert first.link_megabytes_per_second == 75.0
    assert first.propensity == pytest.approx(1 / 3)
    assert first.scores == {}
    works = {arm.variant: arm.work_ms for arm in first.alternatives}
    assert works == {
        "whole": pytest.approx(100.0),
        "layer": pytest.approx(100.0),
        "semantic": pytest.approx(2 * 20.0),
    }
    chosen_ms = works[first.variant or ""]
    assert chosen_ms is not None
    second = one(made.accepted(accepted("c.2"), 0.0))
    assert second.load_ms == pytest.approx(chosen_ms / 2)


def test_scores_are_published_where_they_are_numbers() -> None:
    made = splitter("mab")
    made.cluster(snapshot(ready("a")), 0.0)
    untried = one(made.accepted(accepted("c.1"), 0.0))
    assert untried.scores == {}  # no arm was tried: all bounds are infinite
    assert TaskDecided.model_validate_json(untried.model_dump_json()) == untried
    learnt = splitter("expected-reward")
    learnt.cluster(snapshot(ready("a")), 0.0)
    assert set(one(learnt.accepted(accepted("c.1"), 0.0)).scores) == {"whole", "layer", "semantic"}


def test_a_policy_is_told_how_much_of_a_prediction_is_waiting() -> None:
    seen: list[SplitContext] = []

    class Watching(Fixed):
        def decide(self, context: SplitContext) -> Decision:
            seen.append(context)
            return super().decide(context)

    made = SplitterCore(Watching("whole"), placement_policy("earliest-finish"))
    made.add_applications([APP])
    made.cluster(snapshot(ready("a")), 0.0)
    for task in ("c.1", "c.2"):
        made.accepted(accepted(task, batch=10, deadline_ms=5000.0), 0.0)
    alone, behind = (context.arms[0] for context in seen)
    assert alone.wait_ms == 0.0
    assert behind.wait_ms == pytest.approx((behind.foreseen_ms or 0) - (alone.foreseen_ms or 0))
    assert behind.wait_ms == pytest.approx(100.0, abs=10)  # the work of the first, less its way to the node


def test_what_a_task_takes_of_the_brokers_link_is_published_and_waited_for() -> None:
    made = splitter("expected-reward")
    made.cluster(snapshot(ready("a"), ready("b"), broker=0.1), 0.0)
    first, second = (
        one(made.accepted(accepted(task, batch=10, deadline_ms=5000.0), 0.0)) for task in ("c.1", "c.2")
    )
    for each in first.alternatives:
        link_ms = 2 * job(APP, each.variant, 10).carried_bytes / 100
        assert each.burden_ms == pytest.approx(max(each.work_ms or 0, link_ms))
    assert any((each.burden_ms or 0) > (each.work_ms or 0) for each in first.alternatives)
    assert second.load_ms > 0
    assert all((each.wait_ms or 0) > 0 for each in second.alternatives)


def test_decisions_of_before_scores_were_published_are_still_read() -> None:
    made = splitter()
    made.cluster(snapshot(ready("a")), 0.0)
    old = one(made.accepted(accepted(), 0.0)).model_dump(
        mode="json",
        exclude={
            "deadline_ms": True,
            "load_ms": True,
            "link_megabytes_per_second": True,
            "propensity": True,
            "explored": True,
            "alternatives": {"__all__": {"work_ms", "score"}},
        },
    )
    read = TaskDecided.model_validate_json(json.dumps(old))
    assert (read.deadline_ms, read.propensity, read.explored, read.scores) == (None, 1.0, False, {})


@pytest.mark.parametrize("policy", get_args(SplitName))
def test_what_any_policy_learns_live_survives_a_restart(policy: SplitName) -> None:
    compressed = chain("compressed", [fragment("whole", image_ms=5, megabytes=3.0)], accuracy=0.7)
    app = APP.model_copy(update={"variants": (*APP.variants, compressed)})
    made, again = splitter(policy, app), splitter(policy, app)
    made.cluster(snapshot(ready("a")), 0.0)
    for index in range(20):
        decided = one(made.accepted(accepted(f"c.{index}"), 100.0 * index))
        made.finished(finished_after(decided, 60.0 + index), 100.0 * index + 60.0)
    again.restore(json.loads(json.dumps(made.state())))
    assert again.state() == made.state()


@pytest.mark.parametrize(
    ("batch", "deadline_ms", "variant"), [(1, 1000, "whole"), (40, 2000, "layer"), (12, 60, "semantic")]
)
def test_whole_layer_and_semantic_each_win_where_the_predictions_say_so(
    batch: int, deadline_ms: float, variant: str
) -> None:
    made = splitter()
    made.cluster(snapshot(ready("a"), ready("b"), ready("c")), 0.0)
    assert one(made.accepted(accepted(batch=batch, deadline_ms=deadline_ms), 0.0)).variant == variant


def test_layer_is_chosen_where_the_whole_network_fits_no_node() -> None:
    big = three_ways(image_ms=10, megabytes=90)
    made = splitter("rule", big)
    made.cluster(snapshot(*(node(name, megabytes=40, loaded=all_of(big)) for name in "abc")), 0.0)
    decided = one(made.accepted(accepted(), 0.0))
    assert decided.variant == "layer"
    whole = decided.alternatives[0]
    assert whole.predicted_ms is None
    assert "needs 85.8 MiB of memory, the largest node" in whole.note


def test_tasks_accepted_together_are_spread_before_any_is_placed() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a"), ready("b")), 0.0)
    notes = [one(made.accepted(accepted(f"c.{index}"), 0.0)).alternatives[0].note for index in range(4)]
    assert notes == ["on a", "on b", "on a", "on b"]


def test_the_real_placement_replaces_the_foreseen_one() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a"), ready("b")), 0.0)
    first = one(made.accepted(accepted("c.1"), 0.0))
    assert first.alternatives[0].note == "on a"
    made.placed(placed(first, "b", 40.0), 1.0)
    assert one(made.accepted(accepted("c.2"), 2.0)).alternatives[0].note == "on a"


def test_a_message_that_comes_twice_gets_the_same_decision_and_counts_once() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a")), 0.0)
    first = made.accepted(accepted(), 0.0)
    assert made.accepted(accepted(), 0.0) == first
    alone_ms, work_ms = one(first).predicted_ms or 0.0, 40.0
    assert one(made.accepted(accepted("c.next"), 0.0)).predicted_ms == pytest.approx(
        alone_ms + work_ms, abs=10
    )


def test_older_attempts_and_finished_tasks_are_ignored_and_later_attempts_decided_anew() -> None:
    made = splitter()
    made.cluster(snapshot(ready("a")), 0.0)
    second = one(made.accepted(accepted(attempt=2, slack_ms=500.0), 0.0))
    assert second.slack_ms == 500.0
    assert made.accepted(accepted(attempt=1), 1.0) == []
    third = one(made.accepted(accepted(attempt=3, slack_ms=300.0, avoid=("a",)), 200.0))
    assert third.attempt == 3
    made.finished(finished_after(third, 400.0), 400.0)
    assert made.accepted(accepted(attempt=3), 401.0) == []
    assert made.accepted(accepted(attempt=4), 402.0) == []


def test_an_earlier_attempt_does_not_stand_in_the_way_of_the_next() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a")), 0.0)
    first = one(made.accepted(accepted(batch=100, deadline_ms=9000), 0.0))
    second = one(made.accepted(accepted(batch=100, attempt=2, deadline_ms=9000, slack_ms=8999.0), 1.0))
    assert second.predicted_ms == first.predicted_ms


def test_before_the_cluster_is_known_a_task_waits_for_it() -> None:
    made = splitter()
    assert made.accepted(accepted(slack_ms=500.0), 0.0) == []
    assert made.accepted(accepted(slack_ms=500.0), 1.0) == []  # came twice
    assert made.next_due_ms == 500.0 - LAST_MOMENT_MS
    decided = one(made.cluster(snapshot(ready("a")), 100.0))
    assert decided.variant
    assert decided.slack_ms == 400.0
    assert made.next_due_ms is None


def test_a_task_that_still_waits_is_refused_at_its_last_moment() -> None:
    made = splitter()
    assert made.accepted(accepted(slack_ms=500.0), 0.0) == []
    assert made.cluster(snapshot(), 100.0) == []
    assert made.decide_waiting(449.0) == []
    decided = one(made.decide_waiting(450.0))
    assert decided.variant is None
    assert "no edge node is online" in decided.reason
    assert made.decide_waiting(1000.0) == []


def test_a_task_waits_for_memory_that_another_holds() -> None:
    other_whole = fragment("other", megabytes=60)
    other = application([other_whole], [chain("whole", [other_whole])], name="other")
    made = splitter("whole", three_ways(megabytes=60), other)
    made.cluster(snapshot(node("a", megabytes=100)), 0.0)
    first = one(made.accepted(accepted("c.1"), 0.0))
    assert first.variant == "whole"
    assert made.accepted(accepted("c.2", application="other"), 1.0) == []
    assert made.cluster(snapshot(node("a", megabytes=100)), 2.0) == []
    decided = one(made.finished(finished_after(first, 50.0), 50.0))
    assert (decided.task, decided.variant) == ("c.2", "whole")


def test_a_refused_task_that_cannot_be_helped_by_waiting_is_answered_at_once() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a", megabytes=1)), 0.0)
    decided = one(made.accepted(accepted(), 0.0))
    assert decided.variant is None
    assert decided.predicted_ms is None
    assert "needs 2.86 MiB of memory, the largest node (a) has 0.954 MiB" in decided.reason


def test_an_unknown_application_is_refused() -> None:
    decided = one(splitter().accepted(accepted(application="unknown"), 0.0))
    assert decided.variant is None
    assert decided.reason == "no application unknown"


def test_predictions_are_corrected_by_what_answers_took() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a")), 0.0)
    first = one(made.accepted(accepted("c.1", slack_ms=900.0), 0.0))  # 100 ms were lost before
    assert first.predicted_ms
    made.finished(finished_after(first, 100.0 + 2 * first.predicted_ms), 500.0)
    second = one(made.accepted(accepted("c.2"), 1000.0))
    assert second.predicted_ms == pytest.approx(2**NEWEST_WEIGHT * first.predicted_ms)
    made.finished(finished_after(second, 9999.0, status="expired"), 1500.0)
    made.finished(finished_after(second, 9999.0), 1600.0)  # came twice
    third = one(made.accepted(accepted("c.3"), 2000.0))
    assert third.predicted_ms == pytest.approx(second.predicted_ms)


def test_learnt_state_survives_a_restart() -> None:
    made = splitter("whole")
    made.cluster(snapshot(ready("a")), 0.0)
    first = one(made.accepted(accepted("c.1"), 0.0))
    made.finished(finished_after(first, 3 * (first.predicted_ms or 0)), 500.0)
    again = splitter("whole")
    again.restore(json.loads(json.dumps(made.state())))
    assert again.state() == made.state()
    again.cluster(snapshot(ready("a")), 0.0)
    assert one(again.accepted(accepted("c.2"), 0.0)).predicted_ms == pytest.approx(
        3**NEWEST_WEIGHT * (first.predicted_ms or 0)
    )


@pytest.mark.parametrize(
    "broken", [{}, {"correction": []}, {"correction": {}, "policy": "rule", "policy_state": None}]
)
def test_a_broken_state_is_refused(broken: dict[str, Json]) -> None:
    with pytest.raises(StateError):
        splitter().restore(broken)


def test_few_waiting_tasks_are_asked_again_at_a_time_but_each_gets_its_turn_and_its_answer() -> None:
    made = splitter()
    tasks = [f"c.{index}" for index in range(5 * MAX_ASKED_AGAIN)]
    for task in tasks:
        assert made.accepted(accepted(task, slack_ms=500.0), 0.0) == []
    assert made.decide_waiting(100.0) == []
    assert {decided.task for decided in made.decide_waiting(460.0)} == set(tasks)
    assert made.next_due_ms is None


def test_once_nodes_are_there_all_that_waited_is_decided_at_once() -> None:
    made = splitter()
    tasks = [f"c.{index}" for index in range(3 * MAX_ASKED_AGAIN)]
    for task in tasks:
        made.accepted(accepted(task, deadline_ms=60_000), 0.0)
    assert [decided.task for decided in made.cluster(snapshot(ready("a")), 100.0)] == tasks


steps = st.lists(
    st.tuples(
        st.sampled_from(["accepted", "placed", "finished", "nodes", "none", "tick"]),
        st.integers(0, 3),
        st.integers(1, 3),
        st.floats(0, 300),
    ),
    max_size=40,
)


@given(st.sampled_from(get_args(SplitName)), steps)
def test_every_attempt_gets_one_decision_in_time_whatever_happens(
    policy: SplitName, story: list[tuple[str, int, int, float]]
) -> None:
    made = splitter(policy)
    now = 0.0
    asked: dict[tuple[str, int], float] = {}
    answers: dict[tuple[str, int], TaskDecided] = {}
    over: set[str] = set()
    for step, index, attempt, wait in story:
        now += wait
        task = f"c.{index}"
        found: list[TaskDecided] = []
        if step == "accepted":
            found = made.accepted(accepted(task, attempt=attempt, slack_ms=400.0), now)
            if task not in over:
                asked.setdefault((task, attempt), now + 400.0)
        elif step == "placed" and (task, attempt) in answers and answers[task, attempt].variant:
            made.placed(placed(answers[task, attempt], "a", wait), now)
        elif step == "finished" and (task, attempt) in answers:
            over.add(task)
            found = made.finished(finished_after(answers[task, attempt], wait), now)
        elif step in {"nodes", "none"}:
            found = made.cluster(snapshot(ready("a")) if step == "nodes" else snapshot(), now)
        else:
            found = made.decide_waiting(now)
        for decided in found:
            assert answers.setdefault((decided.task, decided.attempt), decided) == decided
    for decided in made.decide_waiting(now + 1000.0):
        answers.setdefault((decided.task, decided.attempt), decided)
    latest = {task: max(a for t, a in asked if t == task) for task, _ in asked}
    for task, attempt in latest.items():
        assert (task, attempt) in answers or task in over


@pytest.mark.parametrize("variant", ["whole", "layer", "semantic"])
def test_a_task_that_nodes_will_share_is_foreseen_as_shared(variant: SplitName) -> None:
    made, alone = (
        SplitterCore(split_policy(variant), placement_policy("earliest-finish", replicas=replicas))
        for replicas in (4, 1)
    )
    decisions = []
    for each in (made, alone):
        each.add_applications([APP])
        each.cluster(snapshot(*(ready(name) for name in "abcd"), node("e")), 0.0)
        decisions.append(one(each.accepted(accepted(batch=32), 0.0)))
    shared, plain = decisions
    assert shared.variant == plain.variant == variant
    assert shared.predicted_ms is not None
    assert plain.predicted_ms is not None
    assert shared.predicted_ms < plain.predicted_ms
    waits = {arm.variant: arm.wait_ms for arm in shared.alternatives}
    assert waits[variant] == pytest.approx(0.0)
