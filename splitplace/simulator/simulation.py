"""One simulation: the cores of the live services decide for a simulated world.

What runs here are the very classes that the live services run (`GatewayCore`, `SplitterCore`, `PlacerCore`).
This file is their shell on a virtual clock: it turns what happens into stimuli and carries out instructions.
It plays sensors, resource monitor and result aggregator itself.

There are two clocks in step: the world's and this file's, so the world alone can be copied to look ahead.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from random import Random
from time import perf_counter

from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import RETURN_HOPS
from splitplace.policies.placement import ActiveJob, PlacementPolicy, placement_policy
from splitplace.policies.splitting import SplitPolicy
from splitplace.services.gateway import answers
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.instructions import Announce, Cancel, Dispatch, Finish, Instruction, Settle
from splitplace.services.gateway.task import NewTask
from splitplace.services.splitter.core import SplitterCore
from splitplace.simulator.accounting import Accounts, answered, record_of
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.departure import DISPATCH_HOPS, Departure, SimulatedTask, drawn
from splitplace.simulator.events import EventQueue
from splitplace.simulator.execution import Execution
from splitplace.simulator.loading import Loader
from splitplace.simulator.monitor import Monitor
from splitplace.simulator.outputs import result_of
from splitplace.simulator.processor import Usage
from splitplace.simulator.rearranging import RearrangingPlacer
from splitplace.simulator.result import TaskRecord
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.workload import Workload
from splitplace.simulator.world import World


class Simulation:
    """Sensors, services and a world.

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
        """Set up a simulation in which nothing has happened."""
        self.world = world
        self.events = EventQueue()
        self.records: list[TaskRecord] = []
        self.decision_ms: list[float] = []
        """Wall-clock time of each decision with its placement."""
        self.applications = {application.name: application for application in workload.applications}
        self.gateway = GatewayCore(scenario.retry_rules(workload), self.applications)
        exclusive = [name for name, machine in world.machines.items() if machine.containers]
        foreseen = placement_policy("earliest-finish", replicas=scenario.replicas)
        self.view = ClusterView(exclusive)
        """The cluster as the placer knows it. The splitter hears the same, so it is kept once for both,
        unless placements wait for an interval."""
        apart = scenario.mode == "interval"
        self.splitter = SplitterCore(
            split, foreseen, ClusterView(exclusive) if apart else self.view, waits=split.reads_waits
        )
        self.interval_ms = scenario.interval_ms(workload)
        self.loader = Loader(scenario, world, self.interval_ms)
        self.placer = RearrangingPlacer(
            placement, self.view, warm_up=scenario.loading is not None, loading=self.loader.by_demand
        )
        self.placement = placement
        self.tasks: dict[str, SimulatedTask] = {}
        """Unfinished tasks by key."""
        self.departures: dict[str, Departure] = {}
        self.end_ms = scenario.intervals * self.interval_ms
        """When the last interval ends; tasks may go on for `drain_intervals` more."""
        self.objectives: tuple[float, ...] = ()
        """Equation 10 of each interval until `end_ms` in which a task ended."""
        self.usages: tuple[Usage, ...] = ()
        """What each host did until `end_ms`."""
        self.accounts = Accounts(world.machines.values(), self.interval_ms, scenario.alpha)
        self._scenario = scenario
        self._at_interval = at_interval
        self.splitter.add_applications(workload.applications)
        for application in workload.applications:
            self.placer.add_application(application)
        self.monitor = Monitor(
            world,
            workload.applications,
            scenario.hop_ms,
            overcommit=scenario.overcommit,
            tells_broker=scenario.through_broker and scenario.broker_known,
        )
        self._online: dict[str, str] = {}
        self._answers: dict[str, Execution] = {}
        """The execution that the best result of a task came from."""
        self._held: list[Announce | TaskDecided] = []
        """Attempts that wait for the next interval: to be decided, or to be placed."""
        self._splitter_wakes_ms = inf
        self._gateway_wakes_ms = inf
        for task in drawn(tasks, scenario, random):
            self.events.at(task.arrival.at_ms + task.intake_ms, partial(self._arrived, task))

    # --- the course of time ----------------------------------------------------------------------------

    def run(self) -> None:
        """Run to the end; afterwards `records` holds every task."""
        self.look()
        self._plan_look()
        self.loader.plan_regularly(self.placer, self.events, self.applications)
        self.events.at(self.interval_ms, partial(self._interval, 1))
        self._run_until(self.end_ms)
        self.objectives = tuple(self.accounts.objectives)
        self.usages = tuple([replace(host.processor.measure()) for host in self.world.machines.values()])
        if self.tasks and self._scenario.drain_intervals:
            self._run_until(self.end_ms + self._scenario.drain_intervals * self.interval_ms, drain=True)
        for key, task in self.tasks.items():
            overdue = self.now_ms - task.arrival.at_ms > task.arrival.deadline_ms
            left = self.gateway.tasks[key]
            status = "overdue" if overdue else "unfinished"
            self.records.append(
                record_of(task.arrival, status, attempts=left.attempt, decided=left.decided)  # type: ignore[arg-type]
            )

    def _run_until(self, end_ms: float, *, drain: bool = False) -> None:
        """Run to a moment; while draining, only as long as there are tasks."""
        ours, theirs = self.events, self.world.events
        while not (drain and not self.tasks):
            our_ms, their_ms = ours.next_ms, theirs.next_ms
            if min(our_ms, their_ms) > end_ms:
                theirs.pass_to(end_ms)
                ours.pass_to(end_ms)
                return
            if their_ms <= our_ms:
                theirs.step()
                if self.world.finished:
                    ours.pass_to(their_ms)
                    self._collect()
            else:
                theirs.pass_to(our_ms)
                ours.step()

    @property
    def now_ms(self) -> float:
        """The present moment."""
        return self.events.now_ms

    # --- stimuli of the gateway ------------------------------------------------------------------------

    def _arrived(self, task: SimulatedTask) -> None:
        arrival = task.arrival
        self.tasks[arrival.task] = task
        new = NewTask(
            key=arrival.task,
            application=arrival.application,
            batch=arrival.batch,
            input_bytes=0,
            deadline_ms=arrival.deadline_ms,
            accepted_at_ms=arrival.at_ms,
        )
        self._carry_out(self.gateway.accept(new, self.now_ms))

    def _collect(self) -> None:
        """Hand over the executions that the world has finished."""
        finished, self.world.finished = self.world.finished, []
        for execution in finished:
            self._returned(execution)

    def _settled(self, key: str) -> None:
        """The aggregator sends the outputs that it has."""
        execution = self.world.executions.get(key)
        if execution is not None:
            self._returned(execution)

    def _returned(self, execution: Execution) -> None:
        result = result_of(execution)
        task = self.gateway.tasks.get(execution.task)
        if result is None or task is None:
            return
        best = task.partial.coverage if task.partial is not None else -1.0
        if result.coverage > best:
            self._answers[execution.task] = execution
        self._carry_out(self.gateway.result(result, self.now_ms))

    def _time_passed(self) -> None:
        self._gateway_wakes_ms = inf
        self._carry_out(self.gateway.time_passed(self.now_ms))

    # --- instructions of the gateway -------------------------------------------------------------------

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Announce():
                    self._announce(instruction)
                case Dispatch():
                    self._dispatch(instruction)
                case Cancel(key):
                    self.departures.pop(key, None)
                    self.world.cancel(key)
                case Settle(key):
                    self.events.after(RETURN_HOPS * self.monitor.hop_ms, partial(self._settled, key))
                case Finish():
                    self._finish(instruction)
        due_ms = self.gateway.next_due_ms
        if due_ms < inf and not self.now_ms <= self._gateway_wakes_ms <= due_ms:
            self._gateway_wakes_ms = max(due_ms, self.now_ms)
            self.events.at(self._gateway_wakes_ms, self._time_passed)

    def _announce(self, announce: Announce) -> None:
        """An attempt is to be decided: at once, or at the next interval."""
        if self._scenario.mode == "interval" and self.now_ms % self.interval_ms != 0:
            self._held.append(announce)
        else:
            self._decide(announce)

    def _dispatch(self, dispatch: Dispatch) -> None:
        task, application = self.tasks[dispatch.key], self.applications[dispatch.application]
        departure = Departure.of(task, dispatch.attempt, application, dispatch.placed)
        self.departures[dispatch.key] = departure
        self.events.after(DISPATCH_HOPS * task.hop_ms, partial(self._depart, dispatch.key, departure))

    def _depart(self, key: str, departure: Departure) -> None:
        if self.departures.get(key) is departure:
            del self.departures[key]
            departure.start(self.world)

    def _finish(self, finish: Finish) -> None:
        arrival = self.tasks.pop(finish.key).arrival
        execution = self._answers.pop(finish.key, None)
        outcome = answers.finished(finish, self.applications[finish.application])
        record = record_of(arrival, finish.status, attempts=finish.attempt, decided=finish.decided)
        if finish.result is not None and execution is not None:
            record = answered(record, outcome, execution)
        self.records.append(record)
        self.accounts.left(record)
        self._tell(outcome)

    def _tell(self, outcome: TaskFinished) -> None:
        """Splitter and placer learn from the end of a task."""
        self.placer.finished(outcome, self.now_ms)
        self._hold_or_place(self.splitter.finished(outcome, self.now_ms))

    # --- splitter and placer ---------------------------------------------------------------------------

    def _decide(self, announce: Announce) -> None:
        began = perf_counter()
        decided = self.splitter.accepted(announce.message(self.now_ms), self.now_ms)
        self._place_all(decided, perf_counter() - began)
        self._plan_waking()

    def _place_all(self, decided: Sequence[TaskDecided], decided_in_s: float = 0.0) -> None:
        for decision in decided:
            began = perf_counter()
            self._place(decision)
            self.decision_ms.append(1000 * (perf_counter() - began + decided_in_s))
            decided_in_s = 0.0

    def _place(self, decided: TaskDecided) -> None:
        if not self.gateway.is_current(decided.task, decided.attempt):
            return
        self._carry_out(self.gateway.decided(decided, self.now_ms))
        placing = self.placer.place(decided, self.now_ms)
        if placing is not None:
            self.splitter.placed(placing.placed, self.now_ms)
            self._carry_out(self.gateway.placed(placing.placed, self.now_ms))

    def _hold_or_place(self, decided: Sequence[TaskDecided]) -> None:
        """Place tasks that waited for a decision: at once, or at the next interval."""
        if self._scenario.mode == "immediate":
            self._place_all(decided)
        else:
            self._held += decided

    def _plan_waking(self) -> None:
        """Plan to ask the splitter again when the last moment of a waiting task comes."""
        due_ms = self.splitter.next_due_ms
        if due_ms is not None and not self.now_ms <= self._splitter_wakes_ms <= due_ms:
            self._splitter_wakes_ms = max(due_ms, self.now_ms)
            self.events.at(self._splitter_wakes_ms, self._wake)

    def _wake(self) -> None:
        self._splitter_wakes_ms = inf
        self._hold_or_place(self.splitter.decide_waiting(self.now_ms))
        self._plan_waking()

    # --- hosts -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """The monitor tells splitter, placer and gateway of the hosts."""
        snapshot = self.monitor.snapshot()
        self.loader.load(self.placer.cluster(snapshot, self.now_ms), self.applications)
        decided = self.splitter.cluster(snapshot, self.now_ms)
        online = {node.node: node.boot for node in snapshot.nodes if node.online}
        if online != self._online:
            self._online = online
            self._carry_out(self.gateway.nodes_online(online, self.now_ms))
        self._hold_or_place(decided)

    def _plan_look(self) -> None:
        period_s = self._scenario.monitor_s
        period_ms = self.interval_ms / 5 if period_s is None else 1000 * period_s
        self.events.after(period_ms, self._look_again)

    def _look_again(self) -> None:
        self.look()
        self._plan_look()

    def fail(self, node: str) -> None:
        """A host dies. What it was doing is lost; that is noticed only after a while."""
        self.world.fail(node)
        detection_s = self._scenario.failures.detection_s if self._scenario.failures else 0.0
        self.events.after(1000 * detection_s, partial(self._notice, node))

    def recover(self, node: str) -> None:
        """A host is back."""
        self.world.recover(node)
        self.monitor.mark_alive(node)
        self.look()

    def _notice(self, node: str) -> None:
        if not self.world.machines[node].online:
            self.monitor.mark_dead(node)
            self.look()

    # --- intervals -------------------------------------------------------------------------------------

    def _interval(self, number: int) -> None:
        """End an interval: account for it, learn, move what runs, and decide what waited for it."""
        training = self.placement.end_period(self.accounts.end_interval())
        if training is not None:
            training()()
        if self._scenario.mode == "interval" and self._scenario.rearrange:
            self._rearrange()
        held, self._held = self._held, []
        for waiting in held:
            if isinstance(waiting, TaskDecided):
                self._place_all((waiting,))
            elif self.gateway.is_current(waiting.key, waiting.attempt):
                self._decide(waiting)
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
            self._carry_out(self.gateway.moved(placed, self.now_ms))
