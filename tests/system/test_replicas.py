"""Nodes share a large batch: answers are the network's, and a dead replica costs its share of the work."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from splitplace.bus.connection import Bus, Received
from splitplace.commands.processes.broker import available_kind
from splitplace.messages import topics
from splitplace.messages.task import TaskPlaced
from tests.support.waiting import until
from tests.support.whole_system import LONG_DEADLINE_MS, Setup, System, running_system, sensor_of

pytestmark = pytest.mark.system

BATCH = 512
SLOW = ("--cpu-share", "0.02", "--pacing")
"""Nodes so slow that a batch of a tiny network is worth sharing."""
MOST_TASKS = 8
"""Tasks until one is shared: by times that were measured beside other work, it may not pay."""
THREE = ("n1", "n2", "n3")
FOUR = (*THREE, "n4")


def setup(policy: str, *nodes: str) -> Setup:
    return Setup(policy=policy, nodes=nodes, node_options=SLOW, stall_ms=20_000.0, together=True)


@contextlib.asynccontextmanager
async def placements(system: System) -> AsyncIterator[list[TaskPlaced]]:
    """Every placement from now on."""
    seen: list[TaskPlaced] = []
    bus = Bus(system.settings, f"placements-{secrets.token_hex(4)}")

    async def on_placed(received: Received[TaskPlaced]) -> None:
        seen.append(received.message)

    bus.subscribe(topics.JOB_PLACED, on_placed)
    async with bus:
        await bus.connected()
        yield seen


@pytest.fixture(
    params=[("whole", "n1", "n2"), ("layer", *FOUR), ("semantic", *THREE)], ids=lambda param: param[0]
)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One node more than the variant has stages: two stages already keep two nodes busy."""
    folder = tmp_path_factory.mktemp(request.param[0])
    with running_system(folder, available_kind(), setup(*request.param)) as running:
        yield running


def shared(placed: list[TaskPlaced]) -> list[TaskPlaced]:
    return [task for task in placed if any(stage.micro_batches for stage in task.stages)]


async def test_nodes_share_a_batch_and_the_answers_are_those_of_the_network(system: System) -> None:
    async with placements(system) as placed, sensor_of(system) as sensor:
        while not shared(placed) and len(sensor.sent) < MOST_TASKS:
            await sensor.ask(BATCH, LONG_DEADLINE_MS)
            await until(lambda: not sensor.unanswered())
        assert shared(placed)
        assert sensor.check() == {"answered": len(sensor.sent)}
        for number, task in enumerate(placed):
            (answer,) = sensor.answers[f"t{number}"]
            assert (answer["attempt"], set(answer["nodes"])) == (1, set(task.nodes))


@pytest.fixture
def three(tmp_path: Path) -> Iterator[System]:
    with running_system(tmp_path, available_kind(), setup("whole", *THREE)) as running:
        yield running


async def test_the_others_do_the_work_of_a_dead_replica_in_the_same_attempt(three: System) -> None:
    async with placements(three) as placed, sensor_of(three) as sensor:
        await sensor.ask(BATCH, LONG_DEADLINE_MS)
        await until(lambda: shared(placed))
        victim = placed[-1].nodes[-1]
        three.kill(victim)
        await until(lambda: not sensor.unanswered())
        assert sensor.check() == {"answered": 1}
        (answer,) = sensor.answers["t0"]
        assert answer["attempt"] == 1
        assert {*answer["nodes"]} >= {*THREE} - {victim}
        assert len(answer["predictions"]) == BATCH
