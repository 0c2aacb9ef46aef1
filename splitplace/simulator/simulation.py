"""One simulation: the splitter and placer of the live system decide for a simulated world.

What runs here are the very classes that the live services run (`SplitterCore`, `PlacerCore`); this file
plays the other parts: sensors, gateway and resource monitor.

There are two clocks in step: the world's and this file's, so the world alone can be copied to look ahead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, inf
from random import Random
from time import perf_counter

from splitplace.messages.task import TaskAccepted, TaskDecided, TaskPlaced
from splitplace.policies.placement import ActiveJob, PlacementPolicy, placement_policy
from splitplace.policies.prediction import HOP_MS, Job
from splitplace.policies.splitting import SplitPolicy
from splitplace.services.placer.core import PlacerCore
from splitplace.services.splitter.core import SplitterCore
from splitplace.simulator.accounting import Accounts, finished_of, record_of
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.events import EventQueue
from splitplace.simulator.execution import Execution
from splitplace.simulator.monitor import Monitor
from splitplace.simulator.result import TaskRecord, TaskStatus
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.workload import Workload
from splitplace.simulator.world import World

DISPATCH_MS = 2 * HOP_MS
"""Decision to placer, placement to gateway."""

MAX_ATTEMPTS = 1000  # as many as a message can count


@dataclass(slots=True)
class Task:
    """What the gateway knows of a task that is not over."""

    arrival: Arrival
    slowness: float
    attempt: int = 1
    variant: str | None = None
    explored: bool = False
    predicted_ms: float | None = None
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A task whose inputs will be sent in a moment."""

    task: Task
    attempt: int
    job: Job
    nodes: Mapping[str, str]

    @property
    def due_ms(self) -> float:
        """The task's deadline."""
        return self.task.arrival.at_ms + self.task.arrival.deadline_ms

    def start(self, world: World) -> Execution:
        """The inputs are sent, in this world. Raises KeyError for a host that is not there."""
        return world.start(
            self.task.arrival.task,
            self.attempt,
            self.job,
            self.nodes,
            due_ms=self.due_ms,
            slowness=self.task.slowness,
        )


class Simulation:
    """Sensors, gateway and monitor around a splitter, a placer and a world.

    Args:
        scenario: the set-up.
        workload: its workload, restricted to the arms that can be chosen.
        world: its hosts; nothing may run there yet.
        tasks: what arrives.
        split: decides how each task is split.
        placement: decides where.
        random: draws how much each task's work differs from what was measured of its fragments.
        at_interval: is called at the end of every interval, with how many there were.
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
        at_interval: Callable[[int], None] | None = None,
    ) -> None:
        """A simulation in which nothing has happened."""
        self.world = world
        self.events = EventQueue()
        self.records: list[TaskRecord] = []
        self.decision_ms: list[float] = []
        """Wall-clock time of each decision with its placement."""
        self.splitter = SplitterCore(split, placement_policy("earliest-finish"))
        self.placer = PlacerCore(placement, warm_up=False)
        self.placement = placement
        self.tasks: dict[str, Task] = {}
        """Those that are not over."""
        self.dispatches: dict[str, Dispatch] = {}
        self.interval_ms = scenario.interval_ms(workload)
        self.end_ms = scenario.intervals * self.interval_ms
        self.accounts = Accounts(world.machines.values(), self.interval_ms, scenario.alpha)
        self.applications = {application.name: application for application in workload.applications}
        self._scenario = scenario
        self._at_interval = at_interval
        self.splitter.add_applications(workload.applications)
        for application in workload.applications:
            self.placer.add_application(application)
        self.monitor = Monitor(world, workload.applications)
        self._held: list[tuple[Task, TaskDecided | None]] = []
        """What waits for the next interval: to be decided (None), or to be placed."""
        self._waking_ms = inf
        for task in tasks:
            slowness = exp(random.gauss(0.0, scenario.work_noise)) if scenario.work_noise else 1.0
            self.events.at(task.at_ms, partial(self._arrived, task, slowness))

    # --- the course of time ----------------------------------------------------------------------------

    def run(self) -> None:
        """From the beginning to the end; afterwards `records` holds every task."""
        self.look()
        self._plan_look()
        self.events.at(self.interval_ms, partial(self._interval, 1))
        while (next_ms := min(self.events.next_ms, self.world.events.next_ms)) <= self.end_ms:
            if self.world.events.next_ms <= next_ms:
                self.world.events.step()
                if self.world.finished:
                    self.events.pass_to(next_ms)
                    self._collect()
            else:
                self.world.events.pass_to(next_ms)
                self.events.step()
        self.world.events.pass_to(self.end_ms)
        self.events.pass_to(self.end_ms)
        for task in list(self.tasks.values()):
            overdue = self.end_ms - task.arrival.at_ms > task.arrival.deadline_ms
            self._record(task, "overdue" if overdue else "unfinished")

    @property
    def now_ms(self) -> float:
        """The present moment."""
        return self.events.now_ms

    # --- sensors and gateway ---------------------------------------------------------------------------

    def _arrived(self, arrival: Arrival, slowness: float) -> None:
        task = Task(arrival, slowness)
        self.tasks[arrival.task] = task
        if self._scenario.give_up:
            self.events.after(arrival.deadline_ms, partial(self._give_up, task))
        self._announce(task)

    def _announce(self, task: Task) -> None:
        """A task, or a further attempt at one, is to be decided: at once, or at the next interval."""
        if self._scenario.mode == "interval" and self.now_ms % self.interval_ms != 0:
            self._held.append((task, None))
        else:
            self._decide(task)

    def _decide(self, task: Task) -> None:
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
            grace_ms=0.0 if self._scenario.give_up else None,
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
        task = self.tasks.get(decided.task)
        if task is None or decided.attempt != task.attempt:
            return
        task.variant, task.explored = decided.variant, decided.explored
        if decided.variant is None:
            self._finish(task, "refused", decided.reason)
            return
        placing = self.placer.place(decided, self.now_ms)
        if placing is None:
            return
        placed = placing.placed
        self.splitter.placed(placed, self.now_ms)
        if not placed.stages:
            self._retry_later(task)
            return
        task.predicted_ms = placed.predicted_ms
        application = self.applications[task.arrival.application]
        job = Job(application, application.variant(decided.variant), task.arrival.batch)
        dispatch = Dispatch(task, task.attempt, job, _nodes(placed))
        self.dispatches[decided.task] = dispatch
        self.events.after(DISPATCH_MS, partial(self._dispatch, dispatch))

    def _retry_later(self, task: Task) -> None:
        """There was no room. In interval mode this is the paper's wait queue."""
        task.avoid = ()
        if self._scenario.mode == "interval":
            pause_ms = self.interval_ms - self.now_ms % self.interval_ms
        else:
            pause_ms = self.interval_ms / 10
        self.events.after(pause_ms, partial(self.retry, task, task.attempt))

    def retry(self, task: Task, attempt: int) -> None:
        """Begin the next attempt at a task, unless that attempt is over."""
        if self.tasks.get(task.arrival.task) is not task or task.attempt != attempt:
            return
        if attempt < MAX_ATTEMPTS:
            task.attempt += 1
            self._announce(task)
        else:
            self._finish(task, "failed", f"gave up after {attempt} attempts")

    def _dispatch(self, dispatch: Dispatch) -> None:
        task, key = dispatch.task, dispatch.task.arrival.task
        if self.dispatches.get(key) is not dispatch:
            return
        del self.dispatches[key]
        if self.tasks.get(key) is not task or task.attempt != dispatch.attempt:
            return
        dead = [node for node in dispatch.nodes.values() if not self.world.machines[node].online]
        if dead:  # nobody knows of it yet, so it is lost like what ran there
            self._lost(task, dead[0])
            return
        dispatch.start(self.world)

    def _collect(self) -> None:
        """What the world has finished."""
        finished, self.world.finished = self.world.finished, []
        for execution in finished:
            self._finish(self.tasks[execution.task], "answered", "answered", execution)

    def _give_up(self, task: Task) -> None:
        if self.tasks.get(task.arrival.task) is task:
            self.world.cancel(task.arrival.task)
            self._finish(task, "expired", "the deadline passed")

    def _finish(
        self, task: Task, status: TaskStatus, reason: str, execution: Execution | None = None
    ) -> None:
        record = self._record(task, status, execution)
        self.accounts.left(record)
        finished = finished_of(
            record,
            self.now_ms - task.arrival.at_ms,
            reason=reason,
            predicted_ms=task.predicted_ms,
            execution=execution,
        )
        self.placer.finished(finished, self.now_ms)
        self._hold_or_place(self.splitter.finished(finished, self.now_ms))

    def _record(self, task: Task, status: TaskStatus, execution: Execution | None = None) -> TaskRecord:
        del self.tasks[task.arrival.task]
        record = record_of(
            task.arrival,
            status,
            self.now_ms,
            variant=task.variant,
            accuracy=execution.job.variant.accuracy if execution else 0.0,
            attempts=task.attempt,
            explored=task.explored,
            execution=execution,
        )
        self.records.append(record)
        return record

    # --- waiting ---------------------------------------------------------------------------------------

    def _hold_or_place(self, decided: Sequence[TaskDecided]) -> None:
        """What the splitter decides of tasks that waited is placed at once, or at the next interval."""
        if self._scenario.mode == "immediate":
            self._place_all(decided)
        else:
            self._held += [(self.tasks[one.task], one) for one in decided if one.task in self.tasks]

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

    # --- hosts -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """The monitor tells splitter and placer of the hosts."""
        snapshot = self.monitor.snapshot()
        self.placer.cluster(snapshot, self.now_ms)
        self._hold_or_place(self.splitter.cluster(snapshot, self.now_ms))

    def _plan_look(self) -> None:
        period_s = self._scenario.monitor_s
        period_ms = self.interval_ms / 5 if period_s is None else 1000 * period_s
        self.events.after(period_ms, self._look_again)

    def _look_again(self) -> None:
        self.look()
        self._plan_look()

    def fail(self, node: str) -> None:
        """A host dies. Its tasks stand still until that is noticed."""
        for key in self.world.fail(node):
            self._lost(self.tasks[key], node)
        self.events.after(self._detection_ms, partial(self._notice, node))

    def recover(self, node: str) -> None:
        """A host is back."""
        self.world.recover(node)
        self.monitor.mark_alive(node)
        self.look()

    def _lost(self, task: Task, node: str) -> None:
        task.avoid = (*task.avoid[-8:], node)
        self.events.after(self._detection_ms, partial(self.retry, task, task.attempt))

    def _notice(self, node: str) -> None:
        if not self.world.machines[node].online:
            self.monitor.mark_dead(node)
            self.look()

    @property
    def _detection_ms(self) -> float:
        return 1000 * self._scenario.failures.detection_s if self._scenario.failures else 0.0

    # --- intervals -------------------------------------------------------------------------------------

    def _interval(self, number: int) -> None:
        """An interval is over: account for it, learn, move what runs, and decide what waited for it."""
        training = self.placement.end_period(self.accounts.end_interval())
        if training is not None:
            training()()
        if self._scenario.mode == "interval":
            self._rearrange()
        held, self._held = self._held, []
        for task, decided in held:
            if self.tasks.get(task.arrival.task) is not task:
                continue
            if decided is None:
                self._decide(task)
            else:
                self._place_all((decided,))
        if self._at_interval is not None:
            self._at_interval(number)
        self.events.at((number + 1) * self.interval_ms, partial(self._interval, number + 1))

    def _rearrange(self) -> None:
        """Ask where the stages that run should be, and move them."""
        active = [
            ActiveJob(
                task=execution.task,
                job=execution.job,
                nodes={name: run.machine.name for name, run in execution.runs.items()},
                remaining={name: run.remaining for name, run in execution.runs.items()},
                due_ms=execution.due_ms,
            )
            for execution in self.world.executions.values()
        ]
        for placed in self.placer.rearrange(active, self.now_ms):
            self.splitter.placed(placed, self.now_ms)
            for stage in placed.stages:
                self.world.migrate(placed.task, stage.stage, stage.node)


def _nodes(placed: TaskPlaced) -> dict[str, str]:
    return {stage.stage: stage.node for stage in placed.stages}
