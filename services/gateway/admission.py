"""Which task is begun when, and which is refused because it cannot be in time. Pure.

Tasks wait here, in a line that is fair among sensors, and not in the queues of splitter, placer and nodes.
What was begun is soon done, so a newcomer with a short deadline finds short queues, and what is refused has
cost nobody anything. All times are points on the caller's clock, in ms.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from splitplace.services.gateway.line import Line, Waiting
from splitplace.services.gateway.pace import Pace, Window
from splitplace.services.gateway.refusals import RefusalKind

INPUTS_PER_COST = 32.0
"""Inputs that cost as much as beginning and answering a task."""
SWEEP_MS = 50.0
"""How often tasks that wait are checked for whether they can be in time."""
PATIENCE = 4.0
"""A task that takes this many times the usual response no longer keeps others from beginning."""
LEAST_PATIENCE_MS = 500.0
_MEMORY = 16.0
"""Responses over which the usual one is averaged, about."""
_AGAIN = "; try again later"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway holds at most."""

    tasks: int
    input_bytes: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A task that waited and cannot be in time."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What a sensor holds, and what it may hold while others hold what they do now."""

    tasks: int
    """Its unfinished tasks."""
    most_tasks: int
    share: float
    """How much of its quota is used, 0 to 1: of tasks or of bytes, whichever is more."""


@dataclass(slots=True)
class _Held:
    """An unfinished task, waiting or begun."""

    task: Waiting
    input_bytes: int
    begun_ms: float = inf


class Admission:
    """Bounds what is held, and decides about turns."""

    def __init__(self, limits: Limits) -> None:
        """Hold nothing.

        Args:
            limits: bounds over all sensors.
        """
        self._limits = limits
        self._line = Line()
        self._pace = Pace()
        self._window = Window()
        self._held: dict[str, _Held] = {}
        self._ready: set[str] = set()
        """Waiting tasks that may be begun; the others are being read and written to the journal."""
        self._begun: OrderedDict[str, float] = OrderedDict()
        """Costs of begun tasks that count against the window, in the order in which they were begun."""
        self._tasks_of: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()
        self._held_bytes = 0
        self._usual_ms = 0.0
        self._swept_ms = -inf

    # --- questions ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of unfinished tasks."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many tasks wait for their turn."""
        return len(self._line)

    @property
    def next_due_ms(self) -> float:
        """When `turns` must be called at the latest; infinite while nothing waits."""
        return self._swept_ms + SWEEP_MS if self._line else inf

    def refusal(
        self, sensor: str, batch: int, input_bytes: int, deadline_ms: float, now_ms: float
    ) -> tuple[RefusalKind, str] | None:
        """Return why a task that comes now is not taken; None if it is.

        A sensor may hold as much as is free. So one alone gets half, two get a third each, and there is
        always room for another.

        Args:
            sensor: who sends it.
            batch: the number of its inputs.
            input_bytes: their size.
            deadline_ms: how long after now it should be answered.
            now_ms: the present moment.
        """
        own, free = self._tasks_of[sensor], self._limits.tasks - len(self._held)
        held, room = self._bytes_of[sensor], self._limits.input_bytes - self._held_bytes
        if free <= 0 or input_bytes > room:
            mega = self._held_bytes / 1e6
            reason = f"overloaded: {len(self._held)} unfinished tasks, {mega:.0f} MB of inputs{_AGAIN}"
            return "overloaded", reason
        if own > free or (held and held + input_bytes > room):
            reason = f"this sensor has {own} unfinished tasks, {held / 1e6:.0f} MB, and there is room for "
            return "quota", f"{reason}{free}, {room / 1e6:.0f} MB; wait for answers"
        cost_ms = self._pace.cost_ms(now_ms)
        if cost_ms is None or not self._line:
            return None
        cost = _cost(batch)
        ahead = self._line.cost_ahead(sensor, cost) + sum(self._begun.values())
        why = _too_late(ahead, cost, cost_ms, deadline_ms)
        return ("overloaded", why) if why else None

    @property
    def holders(self) -> Collection[str]:
        """The sensors that have unfinished tasks."""
        return self._tasks_of.keys()

    def quota(self, sensor: str) -> Quota:
        """Return what `refusal` leaves a sensor."""
        own, free = self._tasks_of[sensor], self._limits.tasks - len(self._held)
        held, room = self._bytes_of[sensor], max(self._limits.input_bytes - self._held_bytes, 0.0)
        most = own + (min((free - own) // 2 + 1, free) if own <= free else 0)
        of_tasks, of_bytes = own / most if most else 1.0, 2 * held / (held + room) if held else 0.0
        return Quota(own, most, min(max(of_tasks, of_bytes), 1.0))

    # --- what happens ------------------------------------------------------------------------------

    def add(self, key: str, sensor: str, *, kind: str, batch: int, input_bytes: int, due_ms: float) -> None:
        """Give a task its place in the line. It is begun once it is `ready`.

        Args:
            key: its key.
            sensor: who sent it.
            kind: its application.
            batch: the number of its inputs.
            input_bytes: the size of its inputs.
            due_ms: its deadline.
        """
        task = Waiting(key, sensor, _cost(batch), due_ms, f"{kind} {batch}")
        self._held[key] = _Held(task, input_bytes)
        self._tasks_of[sensor] += 1
        self._bytes_of[sensor] += input_bytes
        self._held_bytes += input_bytes
        self._line.add(task)

    def ready(self, key: str) -> None:
        """A task that has its place may be begun. Unknown tasks are ignored."""
        if key in self._held:
            self._ready.add(key)

    def turns(self, nodes: int, now_ms: float) -> tuple[list[str], list[Refused]]:
        """Return the tasks to begin now, and those that are refused now.

        Args:
            nodes: how many are online.
            now_ms: the present moment.
        """
        refused = self._sweep(now_ms) if now_ms >= self._swept_ms + SWEEP_MS else []
        self._lose_patience(now_ms)
        begun = []
        size = self._window.size(nodes)
        while self._ready and (task := self._next(size)) is not None:
            self._ready.discard(task.key)
            self._held[task.key].begun_ms = now_ms
            self._begun[task.key] = task.cost
            begun.append(task.key)
        self._pace.waiting(len(self._ready), now_ms)
        return begun, refused

    def ended(self, key: str, now_ms: float, *, answered: bool) -> None:
        """A task has ended, with a result or without. Unknown tasks are ignored."""
        held = self._held.pop(key, None)
        if held is None:
            return
        sensor = held.task.sensor
        self._held_bytes -= held.input_bytes
        self._bytes_of[sensor] -= held.input_bytes
        self._tasks_of[sensor] -= 1
        if not self._tasks_of[sensor]:
            del self._tasks_of[sensor], self._bytes_of[sensor]
        self._begun.pop(key, None)
        if held.begun_ms == inf:
            self._ready.discard(key)
            self._line.remove({key})
            return
        if not answered:
            return  # it was refused or given up: that says nothing about what the system can do
        response_ms = now_ms - held.begun_ms
        self._pace.ended(held.task.cost, now_ms)
        self._window.ended(held.task.kind, response_ms, is_full=bool(self._ready))
        self._usual_ms += (response_ms - self._usual_ms) / _MEMORY

    # --- inside ------------------------------------------------------------------------------------

    def _sweep(self, now_ms: float) -> list[Refused]:
        """Remove the waiting tasks that cannot be in time if those before them take their turns."""
        self._swept_ms = now_ms
        cost_ms = self._pace.cost_ms(now_ms)
        ahead = sum(self._begun.values())
        reasons: dict[str, str] = {}
        for task in self._line:
            left_ms = task.due_ms - now_ms
            if task.key not in self._ready:  # it is checked when it is
                ahead += task.cost
            elif left_ms <= 0:
                reasons[task.key] = "overloaded: the deadline passed before the task could be begun"
            elif cost_ms is not None and (why := _too_late(ahead, task.cost, cost_ms, left_ms)):
                reasons[task.key] = why
            else:
                ahead += task.cost
        self._ready -= reasons.keys()
        return [Refused(task.key, reasons[task.key]) for task in self._line.remove(set(reasons))]

    def _next(self, size: float) -> Waiting | None:
        """Remove and return the task to begin now; None if the window is full.

        A sensor that has nothing begun does not wait for the end of another's task.
        """
        if len(self._begun) + 1 <= size:
            return self._line.take(self._ready)
        begun = {self._held[key].task.sensor for key in self._begun}
        if len(self._begun) <= size and not self._line.sensors <= begun:
            return self._line.take(self._ready, besides=begun)
        return None

    def _lose_patience(self, now_ms: float) -> None:
        """Let others begin where a task takes much longer than usual: it may be lost, or be very large."""
        patience_ms = max(LEAST_PATIENCE_MS, PATIENCE * self._usual_ms)
        while self._begun:
            key = next(iter(self._begun))
            if now_ms - self._held[key].begun_ms < patience_ms:
                return
            del self._begun[key]


def _cost(batch: int) -> float:
    return 1.0 + batch / INPUTS_PER_COST


def _too_late(ahead: float, cost: float, cost_ms: float, left_ms: float) -> str:
    needed_ms = (ahead + cost) * cost_ms
    if needed_ms <= left_ms:
        return ""
    return (
        f"overloaded: with what is ahead of it the task takes {needed_ms:.0f} ms; {left_ms:.0f} ms are left "
        f"({1e3 / cost_ms:.0f} tasks a second now){_AGAIN}"
    )
