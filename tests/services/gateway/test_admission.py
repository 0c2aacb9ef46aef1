"""Turns, quotas and refusals, on a clock of the tests' own and a system that does one task after another."""

from dataclasses import dataclass, field

import pytest

from splitplace.services.gateway.admission import SWEEP_MS, Admission, Limits
from splitplace.services.gateway.pace import Pace, Window

SERVICE_MS = 10.0
NODES = 3


@dataclass
class Serial:
    """A system that needs ten milliseconds for each task, one after another."""

    admission: Admission
    now_ms: float = 0.0
    begun: list[str] = field(default_factory=list)
    answered: dict[str, float] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)
    sent: int = 0

    def send(self, sensor: str, deadline_ms: float, *, batch: int = 1) -> str:
        """Send a task; its key, or the kind of its refusal."""
        refusal = self.admission.refusal(sensor, batch, 784, deadline_ms, self.now_ms)
        if refusal is not None:
            return refusal[0]
        self.sent += 1
        key = f"{sensor}.{self.sent}"
        due_ms = self.now_ms + deadline_ms
        self.admission.add(key, sensor, kind="digits", batch=batch, input_bytes=784, due_ms=due_ms)
        self.admission.ready(key)
        self._turns()
        return key

    def _turns(self) -> None:
        begun, refused = self.admission.turns(NODES, self.now_ms)
        self.begun += begun
        for task in refused:
            self.refused[task.key] = self.now_ms
            self.admission.ended(task.key, self.now_ms, answered=False)

    def run(self, until_ms: float) -> None:
        """Do task after task."""
        while self.now_ms < until_ms:
            self.now_ms += SERVICE_MS
            if self.begun:
                key = self.begun.pop(0)
                self.answered[key] = self.now_ms
                self.admission.ended(key, self.now_ms, answered=True)
            self._turns()


@pytest.fixture
def system() -> Serial:
    return Serial(Admission(Limits(tasks=2000, input_bytes=256e6)))


def test_a_burst_gets_what_the_system_can_do_and_the_rest_a_refusal_within_a_moment(system: Serial) -> None:
    keys = [system.send(f"s{number}", 1000.0) for number in range(1000)]
    system.run(300.0)
    assert len(system.refused) >= 850
    system.run(3000.0)
    on_time = [key for key in keys if system.answered.get(key, 1e9) <= 1000.0]
    assert len(on_time) >= 90
    assert len(system.answered) + len(system.refused) == 1000
    assert len(system.answered) - len(on_time) <= 3


def test_once_the_pace_is_known_hopeless_tasks_are_refused_at_once(system: Serial) -> None:
    for number in range(100):
        system.send(f"s{number}", 10_000.0)
    system.run(500.0)
    assert system.send("late", 20.0) == "overloaded"
    assert system.send("patient", 10_000.0).startswith("patient")


def test_nothing_is_refused_for_its_deadline_while_nobody_waits(system: Serial) -> None:
    for number in range(50):
        system.send(f"s{number}", 10_000.0)
    system.run(2000.0)
    assert not system.admission.waiting
    assert system.send("camera", 1.0).startswith("camera")


def test_a_flood_delays_another_sensor_by_few_tasks(system: Serial) -> None:
    for _ in range(500):
        system.send("flood", 60_000.0)
    system.run(1000.0)
    key = system.send("camera", 60_000.0)
    asked_ms = system.now_ms
    system.run(asked_ms + 500.0)
    assert system.answered[key] - asked_ms <= SERVICE_MS * (NODES + 2 + 6)


def test_a_sensor_holds_at_most_as_much_as_is_free(system: Serial) -> None:
    kinds = [system.send("flood", 1e6) for _ in range(1500)]
    assert sum(kind == "quota" for kind in kinds) == pytest.approx(500, abs=2)
    kinds = [system.send("second", 1e6) for _ in range(1000)]
    assert sum(kind.startswith("second") for kind in kinds) == pytest.approx(500, abs=2)
    assert system.send("third", 1e6).startswith("third")


@pytest.mark.parametrize("others", [0, 1, 300, 1998, 1999, 2000])
@pytest.mark.parametrize("own", [0, 1, 200])
def test_the_quota_that_is_told_is_the_one_that_is_kept(others: int, own: int) -> None:
    system = Serial(Admission(Limits(tasks=2000, input_bytes=1e9)))
    for number in range(others):
        system.send(f"other{number}", 1e6)
    for _ in range(own):
        system.send("camera", 1e6)
    said = system.admission.quota("camera")
    for _ in range(2000):
        system.send("camera", 1e6)
    kept = system.admission.quota("camera")
    assert (kept.tasks, kept.share) == (said.most_tasks, 1)
    assert said.share == (said.tasks / said.most_tasks if said.most_tasks else 1)


def test_bytes_use_up_a_quota_too() -> None:
    admission = Admission(Limits(tasks=100, input_bytes=1000))
    admission.add("a.1", "a", kind="digits", batch=1, input_bytes=400, due_ms=1e6)
    assert admission.quota("a").share == pytest.approx(800 / 1000)
    assert list(admission.holders) == ["a"]
    admission.ended("a.1", 1.0, answered=True)
    assert (admission.quota("a").share, list(admission.holders)) == (0, [])


def test_ids_that_are_free_again_can_be_used_by_others() -> None:
    system = Serial(Admission(Limits(tasks=1, input_bytes=1e6)))
    assert system.send("a", 1000.0).startswith("a")
    assert system.send("b", 1000.0) == "overloaded"
    system.run(50.0)
    assert system.send("b", 1000.0).startswith("b")


def test_bytes_of_inputs_are_shared_like_tasks() -> None:
    admission = Admission(Limits(tasks=100, input_bytes=1000))
    admission.add("a.1", "a", kind="digits", batch=1, input_bytes=400, due_ms=1e6)
    assert admission.refusal("a", 1, 400, 1e6, 0.0) is not None
    assert admission.refusal("b", 1, 400, 1e6, 0.0) is None
    assert admission.refusal("b", 1, 601, 1e6, 0.0) is not None


def test_a_task_that_is_stuck_does_not_keep_others_from_beginning(system: Serial) -> None:
    for number in range(NODES + 2):
        system.send(f"stuck{number}", 60_000.0)
    system.begun.clear()  # lost
    key = system.send("camera", 60_000.0)
    system.run(2000.0)
    assert key in system.answered


def test_a_task_that_waited_until_its_deadline_is_refused(system: Serial) -> None:
    for number in range(NODES + 3):
        system.send(f"stuck{number}", 60_000.0)
    system.begun.clear()
    key = system.send("camera", 100.0)
    system.run(100.0 + SWEEP_MS + SERVICE_MS)
    assert key in system.refused


def test_idle_time_does_not_slow_the_pace() -> None:
    pace = Pace()
    for start_ms in (0.0, 1e6):
        pace.waiting(1, start_ms)
        for number in range(1, 40):
            pace.ended(1.0, start_ms + number * SERVICE_MS)
        pace.waiting(0, start_ms + 400.0)
    assert pace.cost_ms(2e6) == pytest.approx(SERVICE_MS, rel=0.05)


def test_a_long_silence_slows_the_pace_before_the_next_task_ends() -> None:
    pace = Pace()
    pace.waiting(1, 0.0)
    for number in range(1, 40):
        pace.ended(1.0, number * SERVICE_MS)
    assert (pace.cost_ms(390.0 + 1000.0) or 0.0) > 2 * SERVICE_MS


def test_the_window_grows_where_responses_do_not_and_shrinks_where_tasks_wait() -> None:
    window = Window()
    assert window.size(NODES) == NODES + 2
    for _ in range(1000):
        window.ended("digits 1", 100.0, is_full=True)  # a far, wide system: nobody waits
    wide = window.size(NODES)
    assert wide > 4 * NODES
    for _ in range(5000):
        window.ended("digits 1", 100.0 * window.size(NODES) / NODES, is_full=True)
    assert window.size(NODES) <= 2 * NODES + 1, "a response takes twice as long as the quickest"


def test_the_window_leaves_a_slow_half_of_the_nodes_something_to_do() -> None:
    window = Window()
    window.size(10)
    window.ended("digits 1", 1.0, is_full=True)
    for _ in range(1000):
        window.ended("digits 1", 1000.0, is_full=True)
    assert window.size(10) == 6


def test_a_sensor_that_has_nothing_begun_does_not_wait_for_the_end_of_anothers_task(system: Serial) -> None:
    for _ in range(50):
        system.send("flood", 60_000.0)
    begun = len(system.begun)
    assert system.send("camera", 60_000.0) in system.begun
    assert system.send("door", 60_000.0) not in system.begun, "one more than the window at most"
    assert len(system.begun) == begun + 1


def test_a_place_is_kept_for_a_task_that_is_being_decoded() -> None:
    admission = Admission(Limits(tasks=2, input_bytes=1e6))
    admission.add("a.1", "a", kind="digits", batch=1, input_bytes=1, due_ms=1000.0)
    assert admission.turns(NODES, 0.0) == ([], [])
    assert admission.refusal("b", 1, 1, 1e6, 0.0) is None
    admission.add("b.1", "b", kind="digits", batch=1, input_bytes=1, due_ms=1000.0)
    assert admission.refusal("c", 1, 1, 1e6, 0.0) is not None, "both places are taken"
    admission.ready("b.1")
    assert admission.turns(NODES, 0.0) == (["b.1"], [])
    admission.ended("a.1", 1.0, answered=False)  # its picture was broken
    assert admission.refusal("c", 1, 1, 1e6, 1.0) is None


def test_the_window_does_not_grow_unused() -> None:
    window = Window()
    for _ in range(1000):
        window.ended("digits 1", 100.0, is_full=False)
    assert window.size(NODES) == NODES + 2
