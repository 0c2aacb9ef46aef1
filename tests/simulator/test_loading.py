"""Hosts that begin with nothing: loading takes memory and time, and the placer says what to load ahead."""

import pytest
from pydantic import ValidationError

from splitplace.messages.application import Fragment
from splitplace.policies.memory import described_bytes
from splitplace.simulator import Failures, Scenario
from splitplace.simulator.execution import Machine
from splitplace.simulator.holdings import Holdings, load_ms
from splitplace.simulator.running import experience, run
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.world import World
from tests.simulator.worlds import SCORE, fragment, job, world

MEGABYTE = 1_000_000
HALF_A_MEGABYTE_MS = 500.0
"""Over the link of these hosts."""
MIXED = Scenario(
    profile="store",
    machines="mixed",
    hosts=10,
    interval_s=0.6,
    intervals=20,
    rate=4,
    discipline="deadline",
    through_broker=True,
    memory_factor=0.5,
    mobility=False,
    arms=("whole", "layer", "semantic", "compressed", "int8"),
    loading="demand",
    records=True,
)


def piece(name: str) -> Fragment:
    """A fragment of 100 MB in memory whose files have half a megabyte; an image takes a millisecond."""
    return fragment(name).model_copy(update={"file_bytes": MEGABYTE // 2})


def loading_world(*, memory_megabytes: float = 250.0) -> tuple[World, Machine, Holdings]:
    made = world("a", memory_megabytes=memory_megabytes)
    made.simulate_loading(1.0)
    machine = made.machines["a"]
    assert machine.holdings is not None
    return made, machine, machine.holdings


def run_until(made: World, end_ms: float) -> None:
    while made.events.next_ms <= end_ms:
        made.events.step()
    made.events.pass_to(end_ms)


def end_of(made: World, task: str) -> float:
    while not any(execution.task == task for execution in made.finished):
        made.events.step()
    return made.events.now_ms


def test_a_task_waits_until_its_fragment_is_fetched_and_loaded_and_the_next_one_does_not() -> None:
    made, _, holdings = loading_world()
    one = piece("one")
    made.start("c.1", 1, job([one]), {"s0": "a"})
    first_ms = end_of(made, "c.1")
    assert first_ms >= HALF_A_MEGABYTE_MS + load_ms(SCORE)
    assert holdings.loaded == (one.sha256,)
    began_ms = made.events.now_ms
    made.start("c.2", 1, job([one]), {"s0": "a"})
    assert end_of(made, "c.2") - began_ms < first_ms / 2


def test_the_least_recently_used_makes_room_and_its_files_stay() -> None:
    made, _, holdings = loading_world()
    one, two, three = (piece(name) for name in ("one", "two", "three"))
    for number, each in enumerate((one, two, one, three)):
        made.start(f"c.{number}", 1, job([each]), {"s0": "a"})
        end_of(made, f"c.{number}")
    assert set(holdings.loaded) == {one.sha256, three.sha256}
    assert holdings.stored == (two.sha256,)
    began_ms = made.events.now_ms
    made.start("c.again", 1, job([two]), {"s0": "a"})
    assert end_of(made, "c.again") - began_ms < HALF_A_MEGABYTE_MS


def test_a_fragment_waits_for_memory_until_what_is_in_use_is_done() -> None:
    made, _, holdings = loading_world(memory_megabytes=150.0)
    made.start("c.1", 1, job([piece("one")]), {"s0": "a"})
    made.start("c.2", 1, job([piece("two")]), {"s0": "a"})
    first_ms, second_ms = end_of(made, "c.1"), end_of(made, "c.2")
    assert second_ms - first_ms >= HALF_A_MEGABYTE_MS
    assert holdings.loaded == (piece("two").sha256,)


def test_a_fragment_whose_task_was_cancelled_is_waited_for_no_more() -> None:
    made, _, holdings = loading_world(memory_megabytes=150.0)
    made.start("c.1", 1, job([piece("one")]), {"s0": "a"})
    made.start("c.2", 1, job([piece("two")]), {"s0": "a"})
    made.cancel("c.2")
    end_of(made, "c.1")
    run_until(made, made.events.now_ms + 10 * HALF_A_MEGABYTE_MS)
    assert holdings.loaded == (piece("one").sha256,)


def test_what_may_be_needed_is_loaded_into_free_memory_one_by_one() -> None:
    made, _, holdings = loading_world()
    pieces = [piece(name) for name in ("one", "two", "three")]
    holdings.load_when_idle(pieces)
    run_until(made, 1.5 * HALF_A_MEGABYTE_MS)
    assert holdings.loaded == (pieces[0].sha256,)
    run_until(made, 10 * HALF_A_MEGABYTE_MS)
    assert holdings.loaded == tuple(each.sha256 for each in pieces[:2])


def test_what_gives_way_makes_room_unless_a_task_uses_it() -> None:
    made, _, holdings = loading_world()
    two, three, four = (piece(name) for name in ("two", "three", "four"))
    one = fragment("one", kilobytes=(4, 1))
    holdings.load_when_idle([one, two])
    run_until(made, 3 * HALF_A_MEGABYTE_MS)
    made.start("c.1", 1, job([one], batch=1000), {"s0": "a"})  # its input takes 4 s to arrive
    holdings.load_when_idle([three, four], gives_way=[one.sha256, two.sha256])
    run_until(made, made.events.now_ms + 5 * HALF_A_MEGABYTE_MS)
    assert set(holdings.loaded) == {one.sha256, three.sha256}
    holdings.load_when_idle([four], gives_way=[three.sha256])
    run_until(made, made.events.now_ms + 3 * HALF_A_MEGABYTE_MS)
    assert set(holdings.loaded) == {one.sha256, four.sha256}


def test_a_host_that_died_has_nothing_loaded() -> None:
    made, _, holdings = loading_world()
    holdings.load_when_idle([piece("one"), piece("two")])
    run_until(made, 1.5 * HALF_A_MEGABYTE_MS)
    made.fail("a")
    made.recover("a")
    run_until(made, made.events.now_ms + 10 * HALF_A_MEGABYTE_MS)
    assert holdings.loaded == ()
    assert holdings.stored == (piece("one").sha256,)


@pytest.mark.parametrize("loading", ["rarest", "demand"])
def test_memory_is_kept_at_every_interval_and_every_task_ends(loading: str) -> None:
    seen: list[int] = []

    def watch(simulation: Simulation) -> None:
        fragments = {
            each.sha256: each
            for application in simulation.applications.values()
            for each in application.fragments
        }

        def look(_: int) -> None:
            for machine in simulation.world.machines.values():
                assert machine.holdings is not None
                known = [fragments[sha256] for sha256 in machine.holdings.loaded if sha256 in fragments]
                assert sum(map(described_bytes, known)) <= machine.memory_bytes
                seen.append(len(known))

        simulation._at_interval = look

    scenario = MIXED.model_copy(
        update={
            "loading": loading,
            "failures": Failures(mean_intervals_between=20.0),
            "drain_intervals": 100,
        }
    )
    done = experience(scenario, "expected-reward+earliest-finish", "1", prepare=watch)
    assert max(seen) > 1
    assert not done.tasks
    assert len(done.records) > 20


def test_the_same_seed_gives_the_same_run() -> None:
    policy = "expected-reward+earliest-finish"
    results = [run(MIXED, policy, 1).model_dump(exclude={"decision_ms", "wall_s", "cpu_s"}) for _ in range(2)]
    assert results[0] == results[1]


def test_the_oracle_whose_copies_of_the_world_have_everything_loaded_is_refused() -> None:
    with pytest.raises(ValueError, match="oracle"):
        run(MIXED, "oracle+earliest-finish", 1)


def test_loading_needs_hosts_that_work_like_nodes() -> None:
    with pytest.raises(ValidationError, match="deadline"):
        Scenario(profile="store", loading="rarest")
