"""The live gateway and the simulated one are shells over the same core, and translate alike.

A simulation with failures is recorded: every stimulus of its core, with time and instructions. Then each
stimulus comes to the live shell as it would over MQTT, at the same time. The instructions must be the same.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest

from splitplace.bus.connection import Received
from splitplace.messages.cluster import ClusterState
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.splitting import split_policy
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.instructions import Instruction
from splitplace.services.gateway.journal import Entry, Journal, ReplyTo
from splitplace.services.gateway.service import Gateway
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.services.gateway.task import NewTask
from splitplace.simulator import Scenario
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.hosts import machines
from splitplace.simulator.scenario import Failures
from splitplace.simulator.simulation import Simulation
from splitplace.simulator.workload import restricted
from splitplace.simulator.world import Surroundings, World
from tests.services.gateway import stimuli
from tests.support import examples


class Moment(NamedTuple):
    """One stimulus and what followed."""

    now_ms: float
    stimulus: str
    about: Any
    instructions: list[Instruction]


_WITH_STALLED = 3
"""Arguments of `nodes_online` where nodes that do not compute are named; simulated nodes all compute."""


def recorded(core: GatewayCore) -> list[Moment]:
    """Everything that happens to a core from now on."""
    history: list[Moment] = []

    def record(name: str) -> None:
        original = getattr(core, name)

        def call(*arguments: Any) -> list[Instruction]:
            *about, now_ms = arguments if len(arguments) < _WITH_STALLED else arguments[:-1]
            # The core is entered again while instructions are carried out, never before it returns.
            made: list[Instruction] = original(*arguments)
            history.append(Moment(now_ms, name, about[0] if about else None, list(made)))
            return made

        setattr(core, name, call)

    for name in stimuli.NAMES:
        record(name)
    return history


def simulated_history() -> tuple[Simulation, list[Moment]]:
    """Run tasks of both kinds of split on eight hosts that die and come back, one after the other."""
    scenario = Scenario(intervals=16, mobility=False, failures=Failures(mean_intervals_between=1e6))
    names = ("mnist", "fashionmnist", "cifar100")
    tasks = [
        Arrival(
            f"sim.{number}",
            4_000.0 * number,
            names[number % 3],
            200 + 10 * number,
            15_000.0 + 9_000.0 * (number % 7),
        )
        for number in range(60)
    ]
    simulation = Simulation(
        scenario,
        restricted(scenario.workload(), {"semantic", "whole"}),
        World(machines("azure50").expand(8), Surroundings(500.0)),
        tasks,
        split=split_policy("random", seed=1),
        placement=EarliestFinish(),
        random=Random(0),
    )
    hosts = list(simulation.world.machines)
    for number, host in enumerate(hosts[:6]):
        simulation.events.at(9_000.0 + 37_000.0 * number, partial(simulation.fail, host))
        simulation.events.at(60_000.0 + 41_000.0 * number, partial(simulation.recover, host))
    history = recorded(simulation.gateway)
    simulation.run()
    return simulation, history


def cluster(online: Mapping[str, str]) -> ClusterState:
    states = [examples.node(name).model_copy(update={"boot": boot}) for name, boot in online.items()]
    return examples.snapshot(*states)


def entry(task: NewTask) -> Entry:
    client, _, name = task.key.partition(".")
    return Entry(
        key=task.key,
        client=client,
        task=name,
        application=task.application,
        deadline_ms=task.deadline_ms,
        accepted_unix_s=0.0,
        attempt=task.attempt,
        inputs=np.empty((task.batch, 0), np.uint8),
        labels=None,
        reply=ReplyTo(),
    )


def received(message: Any) -> Received[Any]:
    return Received({}, message, memoryview(b""))


async def test_one_history_makes_both_shells_do_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation, history = simulated_history()
    done = Counter(type(each).__name__ for moment in history for each in moment.instructions)
    assert min(done[kind] for kind in ("Announce", "Dispatch", "Cancel", "Settle", "Finish")) > 0, done
    clock = [0.0]
    monkeypatch.setattr("splitplace.services.gateway.service.now_ms", lambda: clock[0])
    live = Gateway(GatewaySettings(), Journal(tmp_path / "journal", durable=False))
    live._core.rules = simulation.gateway.rules
    live._applications.update(simulation.applications)
    live._admission._window._size = 1e9  # the simulator begins every task at once
    monkeypatch.setattr(live._service, "spawn", lambda work, _name: work.close())
    monkeypatch.setattr(live._bus, "send", lambda *_, **__: None)
    repeated = recorded(live._core)
    handlers: dict[str, Any] = {
        "decided": live._on_decided,
        "placed": live._on_placed,
        "result": live._on_result,
    }
    for moment in history:
        clock[0] = moment.now_ms
        match moment.stimulus:
            case "accept":
                task = moment.about
                due_ms = task.accepted_at_ms + task.deadline_ms
                live._admission.add(task.key, "c", kind="a", batch=1, input_bytes=0, due_ms=due_ms)
                live._begin(entry(task), task.accepted_at_ms)
            case "time_passed":
                live._on_time()
            case "nodes_online":
                live._on_cluster(cluster(moment.about))
            case name:
                handlers[name](received(moment.about))
        assert repeated[-1] == moment
    assert len(repeated) == len(history)
