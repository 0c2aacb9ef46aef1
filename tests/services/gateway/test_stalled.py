"""What becomes of tasks whose nodes stop computing."""

from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.task import RetryRules
from tests.services.gateway.stimuli import BOOT, decided, kinds, placed, task


def running(*nodes: str, online: tuple[str, ...] = ("n1", "n2", "n3")) -> GatewayCore:
    core = GatewayCore(RetryRules(stall_ms=200.0))
    core.nodes_online(dict.fromkeys(online, BOOT), 0.0)
    core.accept(task(), 0.0)
    core.decided(decided(), 1.0)
    core.placed(placed(nodes=nodes), 2.0)
    return core


def test_a_task_on_a_node_that_stops_computing_is_tried_again_at_once_with_that_reason() -> None:
    core = running("n1")
    told = core.nodes_online({"n2": BOOT, "n3": BOOT}, 10.0, {"n1": "it has run for 5 s"})
    assert kinds(told) == ["Cancel", "Announce"]
    assert core.tasks["camera.1"].trouble == "node n1 stopped computing: it has run for 5 s"


def test_an_attempt_that_stalled_is_not_repeated_on_the_same_nodes() -> None:
    core = running("n1", "n2")
    core.time_passed(500.0)
    assert core.tasks["camera.1"].avoid == ("n1", "n2")


def test_where_no_other_node_is_left_the_same_ones_are_tried_again() -> None:
    core = running("n1", "n2", online=("n1", "n2"))
    core.time_passed(500.0)
    assert (core.tasks["camera.1"].attempt, core.tasks["camera.1"].avoid) == (2, ())
