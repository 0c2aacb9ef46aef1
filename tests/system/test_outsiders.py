"""Who watches the broker sees the same whether the services share a process or not."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from splitplace.bus.connection import Bus, RawReceived
from splitplace.commands.processes.broker import StartedKind
from splitplace.messages import topics
from splitplace.messages.topics import Topic, all_topics
from tests.support.waiting import until
from tests.support.whole_system import LONG_DEADLINE_MS, Setup, System, running_system, sensor_of

pytestmark = pytest.mark.system

TASKS = 8
STEPS = ("accepted", "decided", "placed", "result", "finished")
WHEN_NEEDED = (
    "fragment/",
    topics.NODE_PREPARE.pattern,
    topics.JOB_LAGGING.pattern,
    topics.JOB_SECOND_RUN.pattern,
)
"""What nodes load and when, and which outputs are overdue, is not the same in any two runs."""
WATCHED = [
    topic for topic in all_topics() if topic.encoding == "json" and not topic.pattern.startswith(WHEN_NEEDED)
]


class Outsider:
    """Reads every topic with messages in JSON."""

    def __init__(self, system: System) -> None:
        self.bus = Bus(system.settings, "outsider")
        self.steps: defaultdict[str, list[str]] = defaultdict(list)
        """What was told of each task, in order."""
        self.fields: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        """Fields of the messages on each kind of topic."""
        self.answers = 0
        for topic in WATCHED:
            self.bus.subscribe_raw(topic, self._keep(topic))

    def _keep(self, topic: Topic[Any]) -> Any:
        async def keep(received: RawReceived) -> None:
            if not received.payload:
                return
            content = json.loads(received.payload)
            assert isinstance(content, Mapping)
            self.fields[topic.pattern].add(tuple(sorted(content)))
            self.answers += topic is topics.ANSWER
            if topic.pattern.startswith("job/"):
                self.steps[received.parameters["task"]].append(topic.pattern.rsplit("/", 1)[1])

        return keep


def looked_at(folder: Path, kind: StartedKind, *, together: bool, least: Mapping[str, Any]) -> Outsider:
    """Return what an outsider saw of some tasks, at least on these topics."""

    async def look(system: System) -> Outsider:
        outsider = Outsider(system)
        async with outsider.bus, sensor_of(system) as sensor:
            await outsider.bus.connected()
            for _ in range(TASKS):
                await sensor.ask(3, LONG_DEADLINE_MS)
                await until(lambda: not sensor.unanswered())
            await until(lambda: all(len(steps) >= len(STEPS) for steps in outsider.steps.values()))
            await until(lambda: least.keys() <= outsider.fields.keys())
        assert outsider.answers == TASKS
        return outsider

    setup = Setup(policy="random", nodes=("n1",), stall_ms=60_000.0, together=together)
    with running_system(folder, kind, setup) as system:
        return asyncio.run(look(system))


def test_an_outsider_sees_the_same_topics_messages_and_order(
    broker_kind: StartedKind, tmp_path: Path
) -> None:
    apart = looked_at(tmp_path / "apart", broker_kind, together=False, least={})
    together = looked_at(tmp_path / "together", broker_kind, together=True, least=apart.fields)
    for seen in (apart, together):
        assert len(seen.steps) == TASKS
        assert {tuple(steps) for steps in seen.steps.values()} == {STEPS}
    assert {topic: together.fields[topic] for topic in apart.fields} == apart.fields
