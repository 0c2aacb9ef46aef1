"""One simulation: the splitter and placer of the live system decide for a simulated world.

What runs here are the very classes that the live services run (`services.splitter.core.Splitter`,
`services.placer.core.Placer`); this file plays the other parts: sensors, gateway and resource monitor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, inf
from random import Random
from time import perf_counter

from messages.cluster import ClusterState
from messages.task import StageReport, TaskAccepted, TaskDecided, TaskFinished
from policies.placement import PlacementPolicy, placement_policy
from policies.placement.interface import PeriodOutcome
from policies.placement.objective import objective, response_share
from policies.prediction import HOP_MS, Job
from policies.scoring import is_on_time, mean, reward
from policies.splitting import SplitPolicy
from services.placer.core import Placer
from services.splitter.core import Splitter
from simulator.arrivals import Arrival
from simulator.events import EventQueue
from simulator.monitor import Monitor
from simulator.result import Status, TaskRecord
from simulator.scenario import Scenario
from simulator.workload import Workload
from simulator.world import Execution, World

DISPATCH_MS = 2 * HOP_MS
"""Decision to placer, placement to gateway."""

MAX_ATTEMPTS = 1000
"""As many as a message can count."""


@dataclass(slots=True)
class _Task:
    """What the gateway knows of a task."""

    arrival: Arrival
    slowness: float
    attempt: int = 1
    variant: str | None = None
    explored: bool = False
    predicted_ms: float | None = None
    avoid: tuple[str, ...] = ()
    running: bool = False


class Simulation:
    """Sensors, gateway and monitor around a splitter, a placer and a world.

    Args:
        scenario: the set-up.
        workload: its workload, restricted to the arms that can be chosen.
        world: its hosts; nothing may run there yet.
        tasks: what arrives, by time.
        split: decides how each task is split.
        placement: decides where.
        random: draws what no decision influences: how long each task's work really takes.
        progress: is called at the end of every interval.
    """

    def __init__(
        self,
        scenario: Scenario,
        workload: Workload,
        world: World,
        tasks: Sequence[Arrival],
        *,
        split: SplitPolicy,
        placement: PlacementPolicy,
        random: Random,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """A simulation in which nothing has happened."""
        self.world = world
        self.events = EventQueue()
        self.records: list[TaskRecord] = []
        self.decision_ms: list[float] = []
        """Wall-clock time of each decision with its placement."""
        self.objectives: list[float] = []
        """Equation 10 of every interval in which a task ended."""
        self.migrations = 0
        self._scenario = scenario
        self._interval_ms = scenario.interval_ms(workload)
        self._end_ms = scenario.intervals * self._interval_ms
        self._progress = progress
        self._placement = placement
        self.splitter = Splitter(split, placement_policy("earliest-finish"))
        self.placer = Placer(placement, warm_up=False)
        self._applications = {application.name: application for application in workload.applications}
        self.splitter.learn_applications(workload.applications)
        for application in workload.applications:
            self.placer.learn_application(application)
        self.monitor = Monitor(
            world,
            {
                fragment.sha256: (fragment.milliseconds_per_image, application.reference_score)
                for application in workload.applications
                for fragment in application.fragments
            },
        )
        self._tasks: dict[str, _Task] = {}
        self._held: list[tuple[_Task, TaskDecided | None]] = []
        """What waits for the next interval: to be decided (None), or to be placed."""
        self._left: list[TaskRecord] = []
        """Tasks that ended in this interval."""
        self._joules = 0.0
        self._waking_ms = inf
        for task in tasks:
            slowness = exp(random.gauss(0.0, scenario.work_noise)) if scenario.work_noise else 1.0
            self.events.at(task.at_ms, partial(self._arrived, task, slowness))

    # --- the course of time ----------------------------------------------------------------------------

    def run(self) -> None:
        """From the beginning to the end; afterwards `records` holds every task."""
        self._look()
        self._plan_look()
        self.events.at(self._interval_ms, partial(self._interval, 1))
        while True:
            lab_ms, world_ms = self.events.next_ms, self.world.events.next_ms
            if min(lab_ms, world_ms) > self._end_ms:
                break
            if world_ms <= lab_ms:
                self.world.events.step()
                if self.world.finished:
                    self.events.pass_to(world_ms)
                    self._collect()
            else:
                self.world.events.pass_to(lab_ms)
                self.events.step()
        self.world.events.pass_to(self._end_ms)
        self.events.pass_to(self._end_ms)
        for task in list(self._tasks.values()):
            overdue = self._end_ms - task.arrival.at_ms > task.arrival.deadline_ms
            self._record(task, "overdue" if overdue else "unfinished")

    @property
    def now_ms(self) -> float:
        """The present moment."""
        return self.events.now_ms

    # --- sensors and gateway ---------------------------------------------------------------------------

    def _arrived(self, arrival: Arrival, slowness: float) -> None:
        task = _Task(arrival, slowness)
        self._tasks[arrival.task] = task
        if self._scenario.give_up:
            self.events.after(arrival.deadline_ms, partial(self._give_up, task))
        self._announce(task)

    def _announce(self, task: _Task) -> None:
        """A task, or a further attempt at one, is to be decided: at once, or at the next interval."""
        at_boundary = self.now_ms % self._interval_ms == 0
        if self._scenario.mode == "interval" and not at_boundary:
            self._held.append((task, None))
        else:
            self._decide(task)

    def _decide(self, task: _Task) -> None:
        arrival = task.arrival
        accepted = TaskAccepted(
            task=arrival.task,
            attempt=task.attempt,
            application=arrival.application,
            batch=arrival.batch,
            input_bytes=0,
            deadline_ms=arrival.deadline_ms,
            slack_ms=arrival.at_ms + arrival.deadline_ms - self.now_ms,
            avoid=task.avoid,
        )
        began = perf_counter()
        decided = self.splitter.accepted(accepted, self.now_ms)
        self._place_all(decided, perf_counter() - began)
        self._plan_waking()

    def _place_all(self, decided: Sequence[TaskDecided], decided_in_s: float = 0.0) -> None:
        for one in decided:
            began = perf_counter()
            self._place(one)
            self.decision_ms.append(1000 * (perf_counter() - began + decided_in_s))
            decided_in_s = 0.0

    def _place(self, decided: TaskDecided) -> None:
        task = self._tasks.get(decided.task)
        if task is None or decided.attempt != task.attempt:
            return
        task.variant, task.explored = decided.variant, decided.explored
        if decided.variant is None:
            self._finish(task, "refused", decided.reason)
            return
        placing = self.placer.place(decided, self.now_ms)
        if placing is None:
            return
        self.splitter.placed(placing.placed, self.now_ms)
        if not placing.placed.stages:
            self._retry_later(task)
            return
        task.predicted_ms = placing.placed.predicted_ms
        nodes = {stage.stage: stage.node for stage in placing.placed.stages}
        self.events.after(DISPATCH_MS, partial(self._dispatch, task, task.attempt, decided.variant, nodes))

    def _retry_later(self, task: _Task) -> None:
        """There was no room. In interval mode this is the paper's wait queue."""
        task.avoid = ()
        if task.attempt < MAX_ATTEMPTS:
            if self._scenario.mode == "interval":
                pause_ms = self._interval_ms - self.now_ms % self._interval_ms
            else:
                pause_ms = self._interval_ms / 10
            self.events.after(pause_ms, partial(self._retry, task, task.attempt))
        else:
            self._finish(task, "failed", "gave up")

    def _retry(self, task: _Task, attempt: int) -> None:
        if self._tasks.get(task.arrival.task) is task and task.attempt == attempt:
            task.attempt += 1
            task.running = False
            self._announce(task)

    def _dispatch(self, task: _Task, attempt: int, variant: str, nodes: dict[str, str]) -> None:
        if self._tasks.get(task.arrival.task) is not task or task.attempt != attempt:
            return
        dead = [node for node in nodes.values() if not self.world.machines[node].online]
        if dead:
            task.avoid = (dead[0],)
            self._retry(task, attempt)
            return
        task.running = True
        application = self._applications[task.arrival.application]
        self.world.events.pass_to(self.now_ms)
        self.world.start(
            task.arrival.task,
            attempt,
            Job(application, application.variant(variant), task.arrival.batch),
            nodes,
            due_ms=task.arrival.at_ms + task.arrival.deadline_ms,
            slowness=task.slowness,
        )

    def _collect(self) -> None:
        """What the world has finished."""
        finished, self.world.finished = self.world.finished, []
        for execution in finished:
            task = self._tasks[execution.task]
            self._finish(task, "answered", "answered", execution)

    def _give_up(self, task: _Task) -> None:
        if self._tasks.get(task.arrival.task) is task:
            self.world.cancel(task.arrival.task)
            self._finish(task, "expired", "the deadline passed")

    def _finish(self, task: _Task, status: Status, reason: str, execution: Execution | None = None) -> None:
        record = self._record(task, status, execution)
        self._left.append(record)
        finished = _finished(task, record, reason, execution, self.now_ms - task.arrival.at_ms)
        self.placer.finished(finished, self.now_ms)
        self._hold_or_place(self.splitter.finished(finished, self.now_ms))

    def _record(self, task: _Task, status: Status, execution: Execution | None = None) -> TaskRecord:
        arrival = task.arrival
        del self._tasks[arrival.task]
        response_ms = self.now_ms - arrival.at_ms if execution else None
        transfer_ms, compute_ms = execution.critical if execution else (None, None)
        application = self._applications[arrival.application]
        accuracy = application.variant(task.variant).accuracy if execution and task.variant else 0.0
        record = TaskRecord(
            task=arrival.task,
            application=arrival.application,
            arrived_ms=arrival.at_ms,
            deadline_ms=arrival.deadline_ms,
            batch=arrival.batch,
            status=status,
            variant=task.variant,
            attempts=task.attempt,
            response_ms=response_ms,
            wait_ms=execution.began_ms - arrival.at_ms if execution else None,
            transfer_ms=transfer_ms,
            compute_ms=compute_ms,
            accuracy=accuracy,
            on_time=response_ms is not None and is_on_time(response_ms, arrival.deadline_ms),
            explored=task.explored,
            migrations=execution.migrations if execution else 0,
        )
        self.records.append(record)
        return record

    # --- waiting ---------------------------------------------------------------------------------------

    def _hold_or_place(self, decided: Sequence[TaskDecided]) -> None:
        """What the splitter decides of tasks that waited is placed at once, or at the next interval."""
        if self._scenario.mode == "immediate":
            self._place_all(decided)
        else:
            self._held += [(self._tasks[one.task], one) for one in decided if one.task in self._tasks]

    def _plan_waking(self) -> None:
        """The splitter must be asked again when the last moment of a waiting task comes."""
        due_ms = self.splitter.next_due_ms
        if due_ms is not None and not self.now_ms <= self._waking_ms <= due_ms:
            self._waking_ms = max(due_ms, self.now_ms)
            self.events.at(self._waking_ms, self._wake)

    def _wake(self) -> None:
        self._waking_ms = inf
        self._hold_or_place(self.splitter.decide_waiting(self.now_ms))
        self._plan_waking()

    # --- the monitor and the clock ---------------------------------------------------------------------

    def _plan_look(self) -> None:
        period_s = self._scenario.monitor_s
        period_ms = self._interval_ms / 10 if period_s is None else 1000 * period_s
        self.events.after(period_ms, self._look_again)

    def _look_again(self) -> None:
        self._look()
        self._plan_look()

    def _look(self) -> None:
        """The monitor tells splitter and placer of the hosts."""
        self.world.events.pass_to(self.now_ms)
        snapshot: ClusterState = self.monitor.snapshot()
        self.placer.cluster(snapshot, self.now_ms)
        self._hold_or_place(self.splitter.cluster(snapshot, self.now_ms))

    def _interval(self, number: int) -> None:
        """An interval is over: account for it, learn, and decide what waited for it."""
        self.world.events.pass_to(self.now_ms)
        self._end_period()
        held, self._held = self._held, []
        for task, decided in held:
            if self._tasks.get(task.arrival.task) is not task:
                continue
            if decided is None:
                self._decide(task)
            else:
                self._place_all((decided,))
        if self._progress is not None:
            self._progress(number)
        self.events.at((number + 1) * self._interval_ms, partial(self._interval, number + 1))

    def _end_period(self) -> None:
        machines = self.world.machines.values()
        joules = sum([machine.processor.measure().joules for machine in machines])
        most = sum([machine.host.power_watts(1.0) for machine in machines]) * self._interval_ms / 1000
        energy, self._joules = (joules - self._joules) / most, joules
        left, self._left = self._left, []
        outcome = PeriodOutcome(
            tasks=len(left),
            reward=mean([reward(record.on_time, record.accuracy) for record in left]) or 0.0,
            energy=energy,
            response=mean(
                [
                    1.0 if one.response_ms is None else response_share(one.response_ms, one.deadline_ms)
                    for one in left
                ]
            )
            or 0.0,
        )
        if left:
            self.objectives.append(
                objective(outcome.reward, outcome.energy, outcome.response, self._scenario.alpha)
            )
        training = self._placement.end_period(outcome)
        if training is not None:
            training()()


def _finished(
    task: _Task,
    record: TaskRecord,
    reason: str,
    execution: Execution | None,
    elapsed_ms: float,
) -> TaskFinished:
    """The message from which splitter, placer and their policies learn."""
    runs = execution.runs if execution else {}
    return TaskFinished(
        task=record.task,
        attempt=task.attempt,
        application=record.application,
        batch=record.batch,
        status=record.status,  # type: ignore[arg-type]
        reason=reason,
        variant=record.variant,
        nodes=tuple(dict.fromkeys(run.machine.name for run in runs.values())),
        deadline_ms=record.deadline_ms,
        response_ms=elapsed_ms,
        predicted_ms=task.predicted_ms,
        on_time=record.on_time,
        accuracy=record.accuracy if execution else None,
        variant_accuracy=record.accuracy if execution else None,
        stages=tuple(
            StageReport(
                stage=name,
                node=run.machine.name,
                queue_ms=max(0.0, run.computed_ms - run.received_ms - run.compute_ms),
                compute_ms=run.compute_ms,
            )
            for name, run in runs.items()
        ),
        moved_bytes=round(execution.moved_bytes) if execution else 0,
    )
