"""Services that share a process promise what services apart promise."""

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest

from splitplace.commands.processes.broker import StartedKind
from tests.support.waiting import until
from tests.support.whole_system import MODULES, Setup, System, load_with_faults, observed, running_system

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    kind = cast("StartedKind", request.param)
    with running_system(tmp_path_factory.mktemp(kind), kind, Setup(together=True)) as running:
        yield running


def test_all_services_are_online_and_every_task_is_answered_rightly(system: System) -> None:
    async def services() -> set[str]:
        async with observed(system) as observer:
            await until(lambda: observer.services == set(MODULES))
            return observer.services

    assert asyncio.run(services()) == set(MODULES)
    assert set(asyncio.run(load_with_faults(system, {}, seconds=2.0))) == {"answered"}


def test_the_death_of_the_process_costs_no_answer_once_it_is_back(system: System) -> None:
    faults = {
        1.0: lambda: system.kill("services"),
        1.8: lambda: system.restart("services"),
        3.0: lambda: system.kill("services"),
        3.5: lambda: system.restart("services"),
    }
    ends = asyncio.run(load_with_faults(system, faults, seconds=5.0))
    assert set(ends) == {"answered"}


def test_a_killed_broker_costs_no_answer_once_it_is_back(system: System) -> None:
    faults = {1.0: system.broker.kill, 2.0: system.broker.start}
    ends = asyncio.run(load_with_faults(system, faults, seconds=5.0))
    assert set(ends) == {"answered"}
