"""Loading a fragment is part of the plan: it is no stall, and no reason for a second attempt."""

from splitplace.messages.cluster import FragmentLoad, NodeState
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.loading import REPORTED_WITHIN_MS
from splitplace.services.gateway.task import RetryRules
from tests.services.gateway.stimuli import BOOT, decided, kinds, placed, star, task
from tests.support.examples import node
from tests.support.message_examples import LEFT, RIGHT, WHOLE, application

NODES = dict.fromkeys(("n1", "n2", "n3"), BOOT)
STALL_MS = 200.0
FIRST_LOOK_MS = 2.0 + REPORTED_WITHIN_MS


def state(name: str, *, loads: tuple[str, ...] = (), loaded: tuple[str, ...] = ()) -> NodeState:
    """A node that has loaded some fragments and loads others."""
    told = tuple(FragmentLoad(fragment=fragment) for fragment in loads)
    return node(name, loaded=loaded).model_copy(update={"loads": told})


def running(*after: NodeState, before: tuple[NodeState, ...] = (state("n1"), state("n2"))) -> GatewayCore:
    """A task whose branches run on n1 and n2; the nodes tell their state before its placement and after."""
    core = GatewayCore(RetryRules(stall_ms=STALL_MS), {"tiny": application(name="tiny")})
    core.nodes_online(NODES, 0.0)
    core.note_nodes(before, 0.0)
    core.accept(task(deadline_ms=60_000.0), 0.0)
    core.decided(decided(variant="semantic"), 1.0)
    assert kinds(core.placed(star(), 2.0)) == ["Dispatch"]
    core.note_nodes(after, 2.0)
    return core


def test_a_task_that_waits_for_its_fragment_is_not_tried_again() -> None:
    core = running(state("n1", loaded=(LEFT,)), state("n2", loads=(RIGHT,)))
    for now_ms in (FIRST_LOOK_MS, 6000.0, 20_000.0):
        assert core.time_passed(now_ms) == []
    assert core.next_due_ms <= 20_000.0 + REPORTED_WITHIN_MS


def test_it_is_given_its_whole_time_once_the_fragment_is_loaded() -> None:
    core = running(state("n2", loads=(RIGHT,)))
    core.time_passed(5000.0)
    core.note_nodes([state("n1", loaded=(LEFT,)), state("n2", loaded=(RIGHT,))], 5000.0)
    assert core.time_passed(5000.0 + STALL_MS - 1.0) == []
    assert kinds(core.time_passed(5000.0 + REPORTED_WITHIN_MS)) == ["Cancel", "Announce"]
    assert core.tasks["camera.1"].trouble == "nothing moved for too long"


def test_stages_that_load_one_after_the_other_do_not_stall_between_two_reports() -> None:
    core = running(state("n1", loads=(LEFT,)), state("n2"))
    for now_ms in (3000.0, 3100.0):
        core.note_nodes([state("n1", loaded=(LEFT,)), state("n2")], now_ms)
        assert core.time_passed(FIRST_LOOK_MS + now_ms - 3000.0) == []
    core.note_nodes([state("n1", loaded=(LEFT,)), state("n2", loads=(RIGHT,))], 5900.0)
    assert core.time_passed(8000.0) == []


def test_a_stage_that_is_never_loaded_stalls() -> None:
    core = running(state("n1", loaded=(LEFT,)), state("n2"))
    assert core.time_passed(2.0 + REPORTED_WITHIN_MS - 1.0) == []
    assert kinds(core.time_passed(2.0 + REPORTED_WITHIN_MS)) == ["Cancel", "Announce"]


def test_a_node_has_time_to_tell_that_it_loads_what_it_had_not_loaded() -> None:
    core = running()
    assert core.time_passed(FIRST_LOOK_MS - 1.0) == []
    assert kinds(core.time_passed(FIRST_LOOK_MS)) == ["Cancel", "Announce"]


def test_nodes_that_have_loaded_everything_are_given_the_usual_time() -> None:
    core = running(before=(state("n1", loaded=(LEFT,)), state("n2", loaded=(LEFT, RIGHT))))
    assert kinds(core.time_passed(2.0 + STALL_MS)) == ["Cancel", "Announce"]


def test_what_its_nodes_load_for_others_and_what_other_nodes_load_does_not_count() -> None:
    core = running(state("n1", loads=(RIGHT, WHOLE)), state("n3", loads=(LEFT,)))
    assert kinds(core.time_passed(FIRST_LOOK_MS)) == ["Cancel", "Announce"]


def test_a_task_of_an_unknown_application_is_given_the_usual_time() -> None:
    core = GatewayCore(RetryRules(stall_ms=STALL_MS))
    core.nodes_online(NODES, 0.0)
    core.note_nodes([state("n1", loads=(WHOLE,))], 0.0)
    core.accept(task(), 0.0)
    core.placed(placed(), 1.0)
    assert kinds(core.time_passed(1.0 + STALL_MS)) == ["Cancel", "Announce"]


def test_loading_does_not_outlast_the_deadline() -> None:
    core = running(state("n1", loads=(LEFT,)), state("n2", loads=(RIGHT,)))
    assert kinds(core.time_passed(60_500.0))[-1] == "Finish"


def test_a_node_that_died_while_it_loaded_is_lost_as_any_other() -> None:
    core = running(state("n2", loads=(RIGHT,)))
    told = core.nodes_online({"n1": BOOT, "n3": BOOT}, 50.0)
    assert kinds(told) == ["Cancel", "Announce"]
