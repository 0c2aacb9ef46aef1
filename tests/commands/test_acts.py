"""The acts of the demo: who plays, how many tasks each gets, and what is said about them."""

import io
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from splitplace.commands.demo import words
from splitplace.commands.demo.acts import allowed, cast, rate, shares
from splitplace.commands.demo.by_deadline import by_deadline, sentence
from splitplace.commands.demo.deadlines import DeadlinesError, read_deadlines, write_deadlines
from splitplace.commands.demo.kill import Killed, NodeKiller
from splitplace.commands.demo.single_node import best_single_node
from splitplace.commands.demo.stage import progress_line
from splitplace.commands.demo.summary import SensorTask, figures
from splitplace.commands.demo.workload import TightDeadline
from splitplace.commands.processes.children import Child, Processes
from splitplace.commands.watch.observation import Observation
from splitplace.messages.application import Application
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
from tests.commands.sensor_tasks import sent
from tests.support.examples import node
from tests.support.messages import accepted, decided, finished, placed
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import block_until

TIGHT = TightDeadline(10.0, 1.0)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return build_tiny_application(tmp_path_factory.mktemp("store"), milliseconds_per_image=1.0)


def part(*tasks: SensorTask) -> Mapping[str, Any]:
    return {**figures(tasks, frozenset(), {}), "reason": ""}


REFUSED: dict[str, Any] = {"status": "refused", "decision": None, "on_time": False, "right": 0}


@given(tasks=st.integers(1, 100_000), small=st.integers(0, 5))
def test_every_task_belongs_to_an_act(tasks: int, small: int) -> None:
    shared = shares(tasks, small)
    assert shared.split + shared.killed + sum(shared.small) == tasks
    assert shared.split >= 1
    assert shared.killed >= (tasks > 1)
    assert len(shared.small) == small
    assert all(count >= 0 for count in shared.small)


def test_all_acts_get_tasks_if_there_are_enough() -> None:
    assert min(*(shared := shares(12, 2)).small, shared.killed, shared.split) >= 1


def test_the_largest_network_by_memory_plays_the_main_part(tmp_path: Path) -> None:
    small, large = (
        build_tiny_application(tmp_path, name=name, peak_memory_bytes=size)
        for name, size in (("alpha", 100_000), ("beta", 900_000))
    )
    for order in ((small, large), (large, small)):
        actors = cast(order)
        assert (actors.large, actors.small) == (large, (small,))


def test_only_variants_that_are_allowed_set_the_deadlines(application: Application) -> None:
    assert [each.name for each in allowed(application, "whole,semantic").variants] == ["whole", "semantic"]
    assert allowed(application, "all") == application
    with pytest.raises(ValueError, match="no variant among int8"):
        allowed(application, "int8")


def test_slow_networks_are_asked_more_seldom() -> None:
    assert rate(TightDeadline(1000.0, 0.0), 1) < rate(TIGHT, 1) == rate(None, 1)


def test_deadlines_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "deadlines.json"
    write_deadlines(file, {"mnist": TIGHT, "other": None})
    assert read_deadlines(file) == {"mnist": TIGHT, "other": None}


@pytest.mark.parametrize("content", ["", "[]", '{"mnist": 3}', '{"mnist": {"ms": "soon"}}'])
def test_a_file_that_holds_no_deadlines_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "deadlines.json"
    file.write_text(content)
    with pytest.raises(DeadlinesError, match="is not a file that a demo has written"):
        read_deadlines(file)


def test_a_single_node_is_in_time_with_loose_deadlines_and_not_with_hopeless_ones(
    application: Application,
) -> None:
    nodes = (node("slow", speed=0.5), node("fast", speed=5.0))
    loose = [sent(number, deadline_ms=60_000.0) for number in range(3)]
    best = best_single_node(application, loose, nodes)
    assert best is not None
    assert (best.node, best.deadline_hit_rate, best.reward) == ("fast", 1.0, 1.0)
    hopeless = best_single_node(application, [sent(0, deadline_ms=0.1)], nodes)
    assert hopeless is not None
    assert (hopeless.deadline_hit_rate, hopeless.reward) == (0.0, 0.5)


def test_tasks_wait_for_each_other_on_a_single_node(application: Application) -> None:
    nodes = (node("only", speed=5.0),)
    apart = [sent(number, batch=64, deadline_ms=500.0, published_s=10.0 * number) for number in range(8)]
    together = [each.model_copy(update={"published_s": 0.0}) for each in apart]
    one, other = (best_single_node(application, tasks, nodes) for tasks in (apart, together))
    assert one is not None
    assert other is not None
    assert one.deadline_hit_rate == 1.0 > other.deadline_hit_rate > 0


def test_nothing_is_calculated_without_tasks(application: Application) -> None:
    assert best_single_node(application, [], (node("only"),)) is None


def test_tasks_are_grouped_by_what_their_deadline_leaves(application: Application) -> None:
    tasks = [
        sent(0, deadline_ms=30.0, decision="semantic"),
        sent(1, deadline_ms=30.0, **REFUSED),
        sent(2, deadline_ms=400.0),
        sent(3, deadline_ms=401.0),
    ]
    tight, medium, loose = by_deadline(tasks, TIGHT, application, 25.0)
    assert (tight.tasks, tight.semantic, tight.layer, tight.unanswered) == (2, 1, 0, 1)
    assert tight.deadline_hit_rate == 0.5
    assert (medium.tasks, medium.deadline_hit_rate, medium.accuracy) == (0, None, None)
    assert (loose.tasks, loose.layer, loose.accuracy) == (2, 2, 0.9)
    assert by_deadline(tasks, None, application, 25.0) == ()


def test_what_deadlines_change_is_said_only_where_it_shows(application: Application) -> None:
    changing = [sent(0, deadline_ms=30.0, decision="semantic"), sent(1, deadline_ms=400.0)]
    same = [each.model_copy(update={"decision": "semantic"}) for each in changing]
    reverse = [sent(0, deadline_ms=30.0), sent(1, deadline_ms=400.0, decision="semantic")]
    said = [
        sentence(by_deadline(tasks, TIGHT, application, 25.0), application)
        for tasks in (changing, same, reverse)
    ]
    assert "where time is short, branches side by side are faster" in said[0]
    assert "nothing speaks for layer" in said[1]
    assert "no clear difference" in said[2]
    assert "No task was answered" in sentence(by_deadline([], TIGHT, application, 25.0), application)


def on_nodes(key: str, *nodes: tuple[str, float], predicted_ms: float = 50.0) -> TaskPlaced:
    stages = tuple(
        StagePlacement(stage=f"s{index}", node=name, work_ms=work_ms)
        for index, (name, work_ms) in enumerate(nodes)
    )
    return placed(key, stages=stages, predicted_ms=predicted_ms)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[dict[str, Child]]:
    """Two processes that wait, in the place of nodes."""
    with Processes(tmp_path) as processes:
        for name in ("n1", "n2"):
            processes.start(name, [sys.executable, "-c", "import signal; signal.pause()"])
        yield processes.children


def test_the_busiest_node_of_a_placed_task_is_killed_and_its_open_tasks_counted(
    children: dict[str, Child],
) -> None:
    seen = Observation()
    left: list[str] = []
    killer = NodeKiller(seen, children, "s", 3, left.append)
    for number in range(3):
        for message in (accepted(f"s.t{number}"), on_nodes(f"s.t{number}", ("n1", 9.0), ("n2", 30.0))):
            seen.apply(message)
            killer.take(message)
        if number == 0:
            seen.apply(finished("s.t0"))
            assert killer.node is None  # a third of the tasks comes first
    assert (killer.node, left) == ("n2", ["n2"])
    assert children["n1"].pid is not None
    seen.apply(finished("s.t1", attempt=2))
    assert killer.outcome() == Killed("n2", lost=1, retried=1, answered=1, in_time=1)


def test_tasks_of_others_and_tasks_without_a_place_kill_nobody(children: dict[str, Child]) -> None:
    seen = Observation()
    left: list[str] = []
    killer = NodeKiller(seen, children, "s", 1, left.append)
    for message in (on_nodes("other.t1", ("n1", 9.0)), on_nodes("s.t1"), decided("s.t2"), accepted("s.t2")):
        killer.take(message)
    assert (killer.node, left, killer.outcome()) == (None, [], None)


def test_a_killed_node_gets_no_chance_to_say_goodbye(children: dict[str, Child]) -> None:
    killer = NodeKiller(Observation(), children, "s", 1, lambda _: None)
    killer.take(on_nodes("s.t1", ("n1", 9.0)))
    block_until(lambda: children["n1"].code is not None, 10.0)
    assert children["n1"].code == -signal.SIGKILL


def test_the_first_act_says_that_memory_is_missing() -> None:
    said = words.act_one_result(
        {**part(sent(0, **REFUSED)), "reason": "needs 6 MB, the largest node has 5 MB"}
    )
    assert "1 of 1 were refused and none was answered" in said
    assert "needs 6 MB, the largest node has 5 MB" in said


def test_the_first_act_does_not_claim_a_refusal_that_did_not_happen() -> None:
    assert "1 of 1 were answered all the same" in words.act_one_result(part(sent(0)))


def test_what_splitting_costs_and_gains_follows_the_figures(application: Application) -> None:
    nodes = (node("only", speed=5.0),)
    single = best_single_node(application, [sent(0, deadline_ms=60_000.0)], nodes)
    branches = {stage.fragment for stage in application.variant("semantic").stages}
    late = part(sent(0, on_time=False), sent(1))
    assert "pays for it with time" in words.verdict(single, late, application)
    assert words.verdict(single, part(sent(0)), application).endswith("buys memory.")
    slow = best_single_node(application, [sent(0, deadline_ms=0.1)], nodes)
    assert "compute at the same time" in words.verdict(slow, late, application)
    small = {**late, "decisions": {"semantic": 2}}
    small_branches = application.model_copy(
        update={
            "fragments": tuple(
                each.model_copy(update={"flops_per_image": 1.0 if each.sha256 in branches else 100.0})
                for each in application.fragments
            )
        }
    )
    assert "are together 2% of the whole network's work" in words.verdict(slow, small, small_branches)


@pytest.mark.parametrize(
    ("whole", "split", "whole_ms", "finding"),
    [
        (9, 1, 10.0, "Here splitting loses, and it knows."),
        (1, 9, 10.0, "Here splitting loses."),
        (1, 9, 19.0, "little difference"),
        (1, 9, 21.0, "little difference"),
        (9, 1, 30.0, "not worth its work"),
        (1, 9, 30.0, "even the small networks gain"),
    ],
)
def test_what_small_networks_teach_follows_the_figures(
    whole: int, split: int, whole_ms: float, finding: str
) -> None:
    predictions = {"whole": whole_ms, "layer": 20.0, "semantic": 25.0}
    said = words.act_four_result(
        {**part(sent(0)), "whole": whole, "split": split, "predicted_ms": predictions}
    )
    assert finding in said


def test_the_tables_fit_into_80_columns(application: Application) -> None:
    tasks = [sent(number, deadline_ms=10.0 * number) for number in range(60)]
    single = best_single_node(application, tasks, (node("medium-1", speed=5.0),))
    file = io.StringIO()
    console = Console(file=file, width=80)
    console.print(words.comparison(part(*tasks), single, part(*tasks)))
    console.print(words.deadlines_table(by_deadline(tasks, TIGHT, application, 25.0)))
    assert "…" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 80


def test_progress_counts_the_tasks_of_the_sensors_that_run() -> None:
    seen = Observation()
    for name in ("s.t1", "s.t2", "s.t3", "other.t1"):
        seen.apply(accepted(name))
    seen.apply(finished("s.t1"))
    seen.apply(finished("s.t2", status="refused", on_time=False))
    assert progress_line(seen, ("s.",), 9) == (
        "3 of 9 tasks sent, 1 answered in time, 0 late, 1 refused or expired, 1 open"
    )


def test_other_work_on_the_machine_is_told() -> None:
    assert not words.busy_note(1.9, 2)
    assert "a load of 7.2 on 2 cores" in words.busy_note(7.21, 2)
