"""Tells nodes that work from nodes that only beat. Pure: messages and times in, judgements out.

A heartbeat comes from a node's event loop, its work from another thread. So a node may beat and not compute:
its disk hangs, a network loops without end, its tensors do not reach it, or it lies. Three signs tell:

- It says so: its running job takes many times what it should, or jobs wait and it begins none.
- A placement came to nothing, and the node has done nothing since. Of a chain, only the first such node is to
  blame: the ones behind it got no input.
- Placement after placement comes to nothing, although the node says that it works.
- Placement after placement is answered by a second run on other nodes, and it has done nothing meanwhile.

In the first case it is stalled until a heartbeat says otherwise. In the others it is suspended for a time
that doubles, and then tried again, on probation, until a task that it took part in is answered. Where this
would hit most nodes at once, something that they share has failed, and none is suspended.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf

from splitplace.messages.application import INPUT, Application
from splitplace.messages.cluster import FragmentLoad, NodeVitals
from splitplace.messages.groupings import GroupingError, placed_variant
from splitplace.messages.task import TaskFinished, TaskPlaced

HANG_FACTOR = 10.0
HANG_FLOOR_MS = 3000.0
"""A job hangs when it runs longer than this, and longer than `HANG_FACTOR` times what is expected."""

MAX_HANG_MS = 60_000.0
"""No expectation makes a job hang later: expectations follow from descriptions that came over the network."""

UNBEGUN_MS = 10_000.0
"""Jobs may wait this long while none runs and nothing is loaded."""

MIN_LOADING_MS = 60_000.0
LOADING_FACTOR = 10.0
"""Loading hangs when it takes longer than this, and than `LOADING_FACTOR` times what the node expected."""

PATIENCE_FACTOR = 3.0
PATIENCE_FLOOR_MS = 1000.0
SHORT_PATIENCE_MS = 500.0
"""A placement is judged after `PATIENCE_FACTOR` times its prediction, and after these floors: the short one
where the task has ended by then."""

HEARTBEAT_WITHIN_MS = 3000.0
"""Wait this long for heartbeats from after that moment."""

SUSPENDED_MS = 5000.0
MAX_SUSPENDED_MS = 300_000.0
"""The first suspension and the longest; each is twice the one before."""

MAX_DOUBTS = 5
"""Doubtful placements in a row until a node is suspended: they came to nothing although it says that it
works, or others answered while it did nothing."""

MAX_PLACEMENTS = 10_000


@dataclass(slots=True)
class _Worker:
    """What is known of one node's work."""

    boot: str
    since_ms: float
    """When this boot was first heard."""
    heard_ms: float
    executed: int
    worked_ms: float = -inf
    """The last heartbeat that told of work: done, running, waiting or loading."""
    unbegun_ms: float | None = None
    """Since when jobs have waited while nothing happened."""
    loading: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Fragments that it loads: since when, and until when that is plausible."""
    says: str = ""
    """Why its own heartbeat counts as stalled."""
    suspended_until_ms: float = -inf
    suspensions: int = 0
    by_silence: bool = False
    """Whether it was suspended because it did nothing, so that any work lifts it."""
    doubts: int = 0
    on_probation: bool = False


@dataclass(slots=True)
class _Placement:
    """An attempt that has not come to an end."""

    placed_ms: float
    least_ms: float
    """An end before this moment says nothing of the nodes."""
    due_ms: float
    """When it is judged."""
    stages: tuple[tuple[str, str, str], ...]
    """Name, source and node, sources before their readers."""
    is_answered: bool = False
    """Whether the task was answered, with the help of nodes that it was not placed on."""


@dataclass(slots=True)
class WorkWatch:
    """The work of all nodes."""

    _workers: dict[str, _Worker] = field(default_factory=dict)
    _applications: dict[str, Application] = field(default_factory=dict)
    _placements: OrderedDict[str, dict[int, _Placement]] = field(default_factory=OrderedDict)
    """By task and attempt."""

    # --- stimuli -----------------------------------------------------------------------------------

    def vitals(self, vitals: NodeVitals, now_ms: float) -> None:
        """Note a heartbeat."""
        worker = self._workers.get(vitals.node)
        if worker is None or worker.boot != vitals.boot:
            worker = self._workers[vitals.node] = _Worker(vitals.boot, now_ms, now_ms, vitals.executed)
        has_done = vitals.executed > worker.executed
        worker.heard_ms, worker.executed = now_ms, vitals.executed
        worker.loading = {
            load.fragment: worker.loading.get(load.fragment, (now_ms, _plausible_until_ms(load, now_ms)))
            for load in vitals.loads
        }
        worker.says = _hang(vitals) or _long_loading(worker.loading, now_ms)
        if not worker.says and (has_done or vitals.running or vitals.queue_length or vitals.loading):
            worker.worked_ms = now_ms
        if has_done or vitals.running or vitals.loading or not vitals.queue_length:
            worker.unbegun_ms = None
        elif worker.unbegun_ms is None:
            worker.unbegun_ms = now_ms
        elif now_ms - worker.unbegun_ms >= UNBEGUN_MS:
            worker.says = f"{vitals.queue_length} jobs wait and it begins none"
        if has_done and worker.by_silence:
            worker.suspended_until_ms = -inf

    def add_application(self, application: Application) -> None:
        """Note which stage reads which."""
        self._applications[application.name] = application

    def placed(self, placed: TaskPlaced, now_ms: float) -> None:
        """Note who was given work. Ends the attempts before."""
        self._end(placed.task, now_ms, before=placed.attempt)
        if not placed.stages:
            return
        sources, expected_ms = self._sources(placed), PATIENCE_FACTOR * (placed.predicted_ms or 0.0)
        attempt = _Placement(
            now_ms,
            now_ms + max(SHORT_PATIENCE_MS, expected_ms),
            now_ms + max(PATIENCE_FLOOR_MS, expected_ms),
            tuple((stage.stage, sources.get(stage.stage, INPUT), stage.node) for stage in placed.stages),
        )
        self._placements.setdefault(placed.task, {}).setdefault(placed.attempt, attempt)
        if len(self._placements) > MAX_PLACEMENTS:
            self._placements.popitem(last=False)

    def finished(self, finished: TaskFinished, now_ms: float) -> None:
        """Note the end of a task: who took part in an answer has worked."""
        if finished.status == "answered":
            for report in finished.stages:
                self._trust(report.node)
        if finished.in_full:
            self._answered(finished)
        self._end(finished.task, now_ms)

    def forget_placements(self) -> None:
        """Judge none of the present placements: a service or the broker was away."""
        self._placements.clear()

    def forget(self, node: str) -> None:
        """Forget a node."""
        self._workers.pop(node, None)

    # --- judgements --------------------------------------------------------------------------------

    def judge(self, now_ms: float) -> None:
        """Judge the placements that are due, once heartbeats from after that moment have come."""
        for task, attempts in list(self._placements.items()):
            for attempt, placement in list(attempts.items()):
                if self._can_judge(placement, now_ms):
                    del attempts[attempt]
                    self._judge(placement, now_ms)
            if not attempts:
                del self._placements[task]
        self._acquit(now_ms)

    def stalled(self, node: str, now_ms: float) -> str:
        """Return why a node counts as stalled; empty if it does not."""
        worker = self._workers.get(node)
        if worker is None:
            return ""
        if worker.says:
            return worker.says
        if now_ms < worker.suspended_until_ms:
            return "nothing came of the work that it was given"
        return ""

    def is_trusted(self, node: str) -> bool:
        """Whether its score counts: not after it was suspended, until an answer shows that it works."""
        worker = self._workers.get(node)
        return worker is None or not (worker.on_probation or worker.says)

    # --- inside ------------------------------------------------------------------------------------

    def _sources(self, placed: TaskPlaced) -> dict[str, str]:
        """Return the source of each stage; empty if the variant is not known."""
        application = self._applications.get(placed.application)
        if application is None:
            return {}
        try:
            variant = placed_variant(application, placed)
        except GroupingError:
            return {}
        return {stage.name: stage.source for stage in variant.stages}

    def _answered(self, finished: TaskFinished) -> None:
        """End an attempt that succeeded. After a second run, its own nodes are judged when it is due."""
        attempts = self._placements.get(finished.task, {})
        placement = attempts.get(finished.attempt)
        if placement is None:
            return
        helped = {report.node for report in finished.stages}
        if all(node in helped for _, _, node in placement.stages):
            del attempts[finished.attempt]
        else:
            placement.is_answered = True

    def _end(self, task: str, now_ms: float, before: float = inf) -> None:
        """End attempts: those that had too little time say nothing of their nodes."""
        attempts = self._placements.get(task, {})
        for attempt in [attempt for attempt in attempts if attempt < before]:
            placement = attempts[attempt]
            if placement.is_answered:
                continue
            if now_ms < placement.least_ms:
                del attempts[attempt]
            placement.due_ms = min(placement.due_ms, now_ms)
        if not attempts:
            self._placements.pop(task, None)

    def _can_judge(self, placement: _Placement, now_ms: float) -> bool:
        if now_ms < placement.due_ms:
            return False
        workers = [self._workers[node] for _, _, node in placement.stages if node in self._workers]
        if any(worker.loading and not worker.says for worker in workers):
            return False
        is_late = now_ms >= placement.due_ms + HEARTBEAT_WITHIN_MS
        return is_late or all(worker.heard_ms >= placement.due_ms for worker in workers)

    def _judge(self, placement: _Placement, now_ms: float) -> None:
        idle: set[str] = set()
        """Stages with a node that sent nothing: what reads them may have got no input."""
        blamed, took_part = set[str](), set[str]()
        for name, source, node in placement.stages:
            worker = self._workers.get(node)
            if source in idle or worker is None or worker.since_ms > placement.placed_ms:
                idle.add(name)
            elif worker.worked_ms >= placement.placed_ms:
                took_part.add(node)
            else:
                idle.add(name)
                if worker.heard_ms >= placement.due_ms:
                    blamed.add(node)
        if placement.is_answered:
            self._doubt(blamed, now_ms, by_silence=True)
            return
        for node in blamed:
            self._suspend(self._workers[node], now_ms, by_silence=True)
        if not blamed:
            self._doubt(took_part, now_ms, by_silence=False)

    def _doubt(self, nodes: set[str], now_ms: float, *, by_silence: bool) -> None:
        for node in nodes:
            worker = self._workers[node]
            worker.doubts += 1
            if worker.doubts >= MAX_DOUBTS:
                self._suspend(worker, now_ms, by_silence=by_silence)

    def _acquit(self, now_ms: float) -> None:
        """Lift all suspensions where most nodes are suspended: then the fault lies elsewhere."""
        beating = [
            worker for worker in self._workers.values() if now_ms - worker.heard_ms < HEARTBEAT_WITHIN_MS
        ]
        suspended = [worker for worker in beating if now_ms < worker.suspended_until_ms]
        if len(suspended) > max(1, len(beating) // 2):
            self._placements.clear()
            for worker in suspended:
                worker.suspended_until_ms = -inf
                worker.suspensions -= 1
                worker.on_probation = worker.suspensions > 0

    @staticmethod
    def _suspend(worker: _Worker, now_ms: float, *, by_silence: bool) -> None:
        if now_ms < worker.suspended_until_ms:
            return
        pause_ms = min(MAX_SUSPENDED_MS, SUSPENDED_MS * 2.0 ** min(worker.suspensions, 16))
        worker.suspended_until_ms = now_ms + pause_ms
        worker.suspensions += 1
        worker.by_silence = by_silence
        worker.on_probation = True
        worker.doubts = 0

    def _trust(self, node: str) -> None:
        worker = self._workers.get(node)
        if worker is not None:
            worker.suspended_until_ms = -inf
            worker.suspensions = worker.doubts = 0
            worker.on_probation = False


def _plausible_until_ms(load: FragmentLoad, now_ms: float) -> float:
    return now_ms + max(MIN_LOADING_MS, LOADING_FACTOR * (load.left_ms or 0.0))


def _long_loading(loading: dict[str, tuple[float, float]], now_ms: float) -> str:
    """Return why the loading of a fragment counts as hanging; empty if none does."""
    for fragment, (since_ms, until_ms) in loading.items():
        if now_ms >= until_ms:
            # Not for how long it has: that would be news with every heartbeat.
            limit_s = (until_ms - since_ms) / 1000
            return f"fragment {fragment[:12]} has been loading for more than {limit_s:.0f} s"
    return ""


def _hang(vitals: NodeVitals) -> str:
    """Return why a running job counts as hanging; empty if it does not."""
    running = vitals.running
    if running is None:
        return ""
    limit_ms = max(HANG_FLOOR_MS, min(MAX_HANG_MS, HANG_FACTOR * running.expected_ms))
    if running.age_ms < limit_ms:
        return ""
    limit, expected = limit_ms / 1000, running.expected_ms / 1000
    return f"fragment {running.fragment[:12]} has run for more than {limit:.1f} s, expected {expected:.2g} s"
