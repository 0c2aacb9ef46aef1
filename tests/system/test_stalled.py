"""A node that beats and does not compute costs no answer, whatever it says of its speed."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus
from splitplace.messages import topics
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.storage.model_store import ModelStore
from tests.support.messages import node_info, node_status, node_vitals
from tests.support.waiting import every, until
from tests.support.whole_system import Setup, System, load_with_faults, running_system

pytestmark = pytest.mark.system

LIAR = "liar"
SCORE = 5000.0
BEAT_S = 0.5


@contextlib.asynccontextmanager
async def a_liar(system: System, fragments: tuple[str, ...]) -> AsyncIterator[list[ClusterState]]:
    """A fast node with all fragments loaded that only beats; gives the cluster states that come meanwhile."""
    states: list[ClusterState] = []

    bus = Bus(system.settings, f"liar-{secrets.token_hex(4)}")
    subscribe_cluster(bus, states.append)
    info = node_info(LIAR).model_copy(
        update={"score": SCORE, "memory_budget_bytes": 1 << 30, "loaded": fragments}
    )
    idle = {"queue_length": 0, "queue_ms": 0.0, "executed": 0}

    async def beat() -> None:
        async for _ in every(BEAT_S):
            await bus.publish(topics.NODE_VITALS, node_vitals(LIAR).model_copy(update=idle))

    async with bus:
        await bus.connected()
        await bus.publish(topics.NODE_STATUS, node_status(LIAR))
        await bus.publish(topics.NODE_INFO, info)
        beating = asyncio.create_task(beat())
        try:
            await until(lambda: any(node.online for node in _liar(states)))
            yield states
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await bus.publish(topics.NODE_STATUS, node_status(LIAR, online=False))


def _liar(states: list[ClusterState]) -> list[NodeState]:
    return [node for node in states[-1].nodes if node.node == LIAR] if states else []


def test_a_node_that_only_beats_is_found_out_and_every_task_is_answered_by_others(tmp_path: Path) -> None:
    async def load(system: System) -> tuple[dict[str, int], list[ClusterState]]:
        (application,) = ModelStore(tmp_path / "store").applications()
        fragments = tuple(fragment.sha256 for fragment in application.fragments)
        async with a_liar(system, fragments) as states:
            return await load_with_faults(system, {}, seconds=6.0, deadline_ms=10_000.0), states

    with running_system(tmp_path, "mosquitto", Setup(together=True)) as system:
        ends, states = asyncio.run(load(system))
    assert set(ends) == {"answered"}
    seen = [node for state in states for node in state.nodes if node.node == LIAR]
    assert seen[0].score == SCORE
    assert any(node.stalled for node in seen)
    assert seen[-1].score < SCORE
