"""Run a whole system on this machine for recorded arrivals, as the demo starts one; and simulate the same."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
from pydantic import ValidationError
from typing_extensions import override

from splitplace.bus.settings import Settings
from splitplace.commands.demo.options import DemoOptions
from splitplace.commands.demo.run import Demo
from splitplace.commands.demo.system import remove
from splitplace.commands.live.compared import Row, Run, TaskEnd, compared, page
from splitplace.commands.live.recorded import drawn, write_arrivals
from splitplace.commands.processes.broker import FoundBroker
from splitplace.commands.processes.children import Processes
from splitplace.commands.processes.cpu_shares import CpuShares
from splitplace.commands.shared.client import connected, subscribe
from splitplace.commands.shared.tasks import task_publication
from splitplace.commands.watch.recording import Log
from splitplace.messages.application import Application
from splitplace.messages.task import Answer, TaskRequest
from splitplace.messages.topics import ANSWER
from splitplace.planning.fitting import fit
from splitplace.planning.forecast import simulate
from splitplace.planning.kinds import from_states
from splitplace.planning.logged import LoggedRun, logged_run
from splitplace.planning.question import Question
from splitplace.policies.pairs import parse_policy
from splitplace.policies.promises import reliability
from splitplace.policies.splitting import parse_arms
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import Calibration, CalibrationError
from splitplace.storage.model_store import ModelStore

POLICIES: Final = (
    "expected-reward+earliest-finish",
    "rule+earliest-finish",
    "mab+daso",
    "mab+earliest-finish",
    "whole+earliest-finish",
    "expected-reward+round-robin",
)
SMALL_POLICIES: Final = POLICIES[:2]
NODES: Final = 6
TASKS, SMALL_TASKS = 150, 60
RATE: Final = 2.5
"""Tasks a second."""
TIGHT_SCORE: Final = 15.0
"""GFLOP/s for which deadlines are tight."""
SIMULATIONS: Final = 5
_PATIENCE_S = 3.0
_SIMULATED = "sim."
"""Sensor of the simulated tasks."""
_ARMS = "whole,layer,semantic,compressed"


class RecordedRun(Demo):
    """A demo whose sensor replays recorded arrivals."""

    first_arms = _ARMS
    preferred = True

    def __init__(self, options: DemoOptions, arrivals: Sequence[Arrival]) -> None:
        """Prepare a run; raises as `Demo` does."""
        super().__init__(options)
        self._arrivals = arrivals
        self.answers: dict[str, Answer] = {}
        """By the task's name."""

    @override
    async def send(self, settings: Settings, sensors: Processes) -> None:
        images = {each.name: np.load(self.samples[each.name]) for each in self.applications}
        name = f"live-{secrets.token_hex(4)}"
        requests = {task.task: _request(task, images[task.application]) for task in self._arrivals}
        async with connected(settings, "live") as client:
            await subscribe(client, settings, ANSWER.at(client=name, task="+"))
            listener = asyncio.create_task(self._listen(client))
            began_s = asyncio.get_running_loop().time()
            for task in self._arrivals:
                await asyncio.sleep(max(0.0, began_s + task.at_ms / 1000 - asyncio.get_running_loop().time()))
                publication = task_publication(
                    settings, task.application, name, task.task, requests[task.task]
                )
                await client.publish_once(publication)
            last_s = max(task.at_ms + task.deadline_ms for task in self._arrivals) / 1000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(began_s + last_s + _PATIENCE_S):
                    await listener
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    async def _listen(self, client: Any) -> None:  # noqa: ANN401 - the client of `connected`
        """Take answers until every task has one."""
        async for message in client.messages:
            with contextlib.suppress(ValidationError, ValueError):
                answer = Answer.model_validate(msgpack.unpackb(message.payload, use_list=False))
                self.answers[answer.task] = answer
            if len(self.answers) == len(self._arrivals):
                return

    @override
    def summary(self, broker: FoundBroker, shares: CpuShares, wall_s: float) -> dict[str, Any]:
        links = [f"{plan.name} {plan.link_megabytes_per_second:g}" for plan in self.plans]
        return {
            "cpu_shares": shares.mechanism,
            "broker": broker.kind,
            "links": f"shaped in both directions, MB/s: {', '.join(links)}"
            if self.options.shaped
            else "the loopback, not shaped",
            "wall_s": wall_s,
        }

    def ends(self) -> Run:
        """Return how the tasks ended; one without an answer was not in time."""
        found = {}
        for task in self._arrivals:
            answer = self.answers.get(task.task)
            answered = answer is not None and answer.status == "answered"
            found[task.task] = TaskEnd(
                on_time=answer is not None and answered and answer.on_time,
                accuracy=_accuracy(self.applications, task, answer) if answered else 0.0,
                response_ms=answer.response_ms if answer is not None and answered else None,
            )
        return found


def conduct(
    out: Path,
    *,
    store: ModelStore,
    folder: Path,
    policies: Sequence[str],
    repetitions: int,
    tasks: int,
    shaped: bool,
    command: str,
    step: Callable[[str], None],
) -> Path:
    """Run all repetitions interleaved, simulate the same, and write the page.

    Args:
        out: folder of the page; arrivals, logs and the calibration lie in `live/` below it.
        store: the networks.
        folder: for what the systems write meanwhile.
        policies: split+placement; the first is what others are tested against.
        repetitions: of each policy.
        tasks: in each run.
        shaped: whether each node has a link of its own speed instead of the loopback.
        command: what makes the page anew.
        step: called with what is done next.

    Raises:
        DemoError: a process died, or a system did not become ready.
        LinkError: links cannot be shaped here.
        CalibrationError: too few tasks went well to fit the simulator.
    """
    files = out / "live"
    files.mkdir(parents=True, exist_ok=True)
    live: dict[str, list[Run]] = {policy: [] for policy in policies}
    arrivals: list[Arrival] = []
    loads, shown = [], {}
    for repetition in range(repetitions):
        turned = [*policies[repetition % len(policies) :], *policies[: repetition % len(policies)]]
        for policy in turned:
            step(f"{policy}, repetition {repetition + 1} of {repetitions}")
            loads.append(os.getloadavg()[0])
            log = files / f"{policy.replace('+', '-')}-{repetition + 1}.jsonl"
            log.unlink(missing_ok=True)
            run = RecordedRun(_options(store, folder, policy, log, shaped=shaped), arrivals)
            if not arrivals:
                arrivals += drawn(run.applications, tasks=tasks, rate=RATE, score=TIGHT_SCORE, seed=0)
                write_arrivals(arrivals, files / "arrivals.csv")
            shown = run.run()
            live[policy].append(run.ends())
            remove(folder)
    step("simulating the same")
    applications = store.usable()[0]
    logged, fitted = _fitted(files, policies, applications)
    (files / "calibration.json").write_text(fitted.model_dump_json(indent=1) + "\n", encoding="utf-8")
    simulated = {
        policy: simulated_ends(policy, arrivals, logged, applications, fitted) for policy in policies
    }
    rows = compared(live, simulated)
    facts = _facts(rows, logged, fitted, arrivals, shown=shown, loads=loads)
    written = out / "live.md"
    bins = {policy: reliability(_promises(files, [policy])) for policy in policies}
    written.write_text(page(rows, bins, facts, command), encoding="utf-8")
    return written


def _fitted(
    files: Path, policies: Sequence[str], applications: Sequence[Application]
) -> tuple[LoggedRun, Calibration]:
    """Fit the simulator to the first policy's logs; to all logs where these hold too little."""
    for used in (policies[:1], policies):
        logged = _logged(files, used)
        words = f"{len(logged.tasks)} tasks of this experiment under {', '.join(used)}"
        with contextlib.suppress(CalibrationError):
            return logged, fit(logged, applications, measured_on=words)
    return logged, fit(logged, applications, measured_on=words)


def _logged(files: Path, policies: Sequence[str]) -> LoggedRun:
    """Return all repetitions of some policies together."""
    logs = [each for policy in policies for each in sorted(files.glob(f"{_file(policy)}-*.jsonl"))]
    return _merged([logged_run(Log(each).entries()) for each in logs])


def _promises(files: Path, policies: Sequence[str]) -> list[tuple[float, bool]]:
    """Return what was promised of tasks at their only decision, and whether it came true."""
    return [
        (task.decided.promised, task.on_time)
        for task in _logged(files, policies).tasks
        if task.decided.promised is not None and task.decided.attempt == task.finished.attempt
    ]


def _options(store: ModelStore, folder: Path, policy: str, log: Path, *, shaped: bool) -> DemoOptions:
    return DemoOptions(
        tasks=0,
        nodes=NODES,
        seed=0,
        broker=None,
        store=store,
        folder=folder,
        log=log,
        policy=parse_policy(policy),
        arms=_ARMS,
        shaped=shaped,
    )


def _file(policy: str) -> str:
    return policy.replace("+", "-")


def _merged(runs: Sequence[LoggedRun]) -> LoggedRun:
    """Put runs of the same nodes together."""
    states: dict[str, list[Any]] = {}
    for run in runs:
        for node, seen in run.states.items():
            states.setdefault(node, []).extend(seen)
    return LoggedRun([task for run in runs for task in run.tasks], states)


def simulated_ends(
    policy: str,
    arrivals: Sequence[Arrival],
    logged: LoggedRun,
    applications: Sequence[Any],
    fitted: Calibration,
) -> list[Run]:
    """Return how the tasks end in simulations of the same nodes, over seeds."""
    used = [each for each in applications if each.name in {task.application for task in arrivals}]
    question = Question(
        cluster=from_states(logged.nodes),
        application=used[0],
        more=tuple(used[1:]),
        calibration=fitted,
        rate=RATE,
        deadline_ms=1000.0,
        policy=policy,
        arms=parse_arms(_ARMS),
        seeds=SIMULATIONS,
        given=tuple(replace(task, task=f"{_SIMULATED}{task.task}") for task in arrivals),
    )
    return [
        {
            each.task.removeprefix(_SIMULATED): TaskEnd(each.on_time, each.accuracy, each.response_ms)
            for each in simulate(question, seed)
        }
        for seed in range(SIMULATIONS)
    ]


def _facts(
    rows: Sequence[Row],
    logged: LoggedRun,
    fitted: Calibration,
    arrivals: Sequence[Arrival],
    *,
    shown: dict[str, Any],
    loads: Sequence[float],
) -> list[str]:
    scores = ", ".join(f"{node} {score:.1f}" for node, score in sorted(logged.scores.items()))
    factors = ", ".join(f"{name} x {factor:.2f}" for name, factor in sorted(fitted.work_factors.items()))
    live = (
        f"Live: broker ({shown.get('broker')}), five services and {NODES} nodes as processes on a machine "
        f"with {os.cpu_count()} cores; CPU shares by {shown.get('cpu_shares')}, which nodes "
        "have before other work gets time where it is a control group; memory by budgets. "
        f"Links: {shown.get('links')}."
    )
    tasks = (
        f"{len(arrivals)} tasks a run at {RATE:g} a second, from `live/arrivals.csv`, with absolute "
        f"deadlines; {rows[0].repetitions} interleaved repetition(s); every run begins without experience."
    )
    simulated = (
        f"Simulated: the same arrivals on nodes of these speeds and budgets, mean of {SIMULATIONS} seeds. "
        f"Its constants were fitted to {fitted.tasks} of {fitted.measured_on}: a hop of "
        f"{fitted.hop_ms:.1f} ms, work {factors}. Hit rates were not fitted."
    )
    busy = (
        f"Load average of the machine at the starts: {min(loads):.1f} to {max(loads):.1f}. Above the number "
        "of cores, others were at work, and the figures are theirs too."
    )
    return [live, f"Nodes in GFLOP/s as they measured themselves: {scores}.", tasks, simulated, busy]


def _request(task: Arrival, samples: Any) -> TaskRequest:  # noqa: ANN401 - an .npz file
    numbers = _numbers(task, len(samples["images"]))
    images, labels = samples["images"][numbers], samples["labels"][numbers]
    return TaskRequest(
        inputs=images.tobytes(),
        shape=images.shape,
        dtype=images.dtype.name,
        deadline_ms=task.deadline_ms,
        labels=tuple(int(label) for label in labels),
    )


def _numbers(task: Arrival, count: int) -> Any:  # noqa: ANN401 - an array of indices
    """Return which samples a task has: the same in every run."""
    return (int(task.task[1:]) * 17 + np.arange(task.batch)) % count


def _accuracy(applications: Sequence[Any], task: Arrival, answer: Answer | None) -> float:
    """Return the accuracy of the variant that answered."""
    application = next(each for each in applications if each.name == task.application)
    known = {variant.name: variant.accuracy for variant in application.variants}
    return float(known.get(answer.decision or "", 0.0)) if answer is not None else 0.0
