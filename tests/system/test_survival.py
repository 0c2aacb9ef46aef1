"""Whatever process is killed, each accepted task ends in exactly one answer, and results are right.

`load_with_faults` checks every answer and the journal; the tests add what must hold of the ends.
"""

import asyncio
import signal
from collections.abc import Iterator
from typing import cast

import pytest

from splitplace.commands.processes.broker import StartedKind
from tests.support.waiting import until
from tests.support.whole_system import MODULES, NODES, System, load_with_faults, observed, running_system

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all tests of this file; each test leaves it whole."""
    kind = cast("StartedKind", request.param)
    with running_system(tmp_path_factory.mktemp(kind), kind) as running:
        yield running


@pytest.fixture(autouse=True)
def _whole_again(system: System) -> Iterator[None]:
    yield
    assert system.dead() == []

    async def recovered() -> None:
        async with observed(system) as observer:
            await until(lambda: observer.services == set(MODULES) and observer.online == set(NODES))

    asyncio.run(recovered())


def test_without_faults_every_task_is_answered_rightly(system: System) -> None:
    ends = asyncio.run(load_with_faults(system, {}, seconds=2.0))
    assert set(ends) == {"answered"}


def test_a_node_killed_in_the_middle_of_tasks_costs_no_answer(system: System) -> None:
    faults = {1.0: lambda: system.kill("n2"), 3.0: lambda: system.restart("n2")}
    ends = asyncio.run(load_with_faults(system, faults))
    assert set(ends) == {"answered"}


@pytest.mark.parametrize("service", sorted(MODULES))
def test_a_killed_service_costs_no_answer_once_it_is_back(system: System, service: str) -> None:
    faults = {1.0: lambda: system.kill(service), 1.8: lambda: system.restart(service)}
    ends = asyncio.run(load_with_faults(system, faults))
    assert set(ends) == {"answered"}


def test_a_killed_broker_costs_no_answer_once_it_is_back(system: System) -> None:
    faults = {1.0: system.broker.kill, 2.0: system.broker.start}
    ends = asyncio.run(load_with_faults(system, faults, seconds=5.0))
    assert set(ends) == {"answered"}


def test_tasks_that_no_node_could_run_in_time_say_that_they_expired(system: System) -> None:
    def all_nodes(number: signal.Signals) -> None:
        for node in NODES:
            system.send(node, number)

    faults = {0.0: lambda: all_nodes(signal.SIGSTOP), 2.5: lambda: all_nodes(signal.SIGCONT)}
    ends = asyncio.run(load_with_faults(system, faults, seconds=3.0, deadline_ms=500.0))
    assert ends.get("expired", 0) + ends.get("refused", 0) > 0


@pytest.mark.serial
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_silent_node_is_noticed_within_three_seconds(
    system: System, number: signal.Signals
) -> None:
    async def notice() -> float:
        async with observed(system) as observer:
            await until(lambda: "n3" in observer.online)
            system.send("n3", number)
            took_s = await until(lambda: "n3" not in observer.online)
        if number == signal.SIGKILL:
            system.restart("n3")
        else:
            system.send("n3", signal.SIGCONT)
        return took_s

    # What else the machine does may delay it once or twice.
    assert any(asyncio.run(notice()) < 3.0 for _ in range(3))


def test_everything_killed_at_once_comes_back_and_finishes(system: System) -> None:
    def kill_all() -> None:
        for name in (*NODES, *MODULES):
            system.kill(name)

    def restart_all() -> None:
        for name in (*MODULES, *NODES):
            system.restart(name)

    faults = {1.0: kill_all, 1.5: restart_all}
    ends = asyncio.run(load_with_faults(system, faults))
    assert set(ends) == {"answered"}
