from dataclasses import dataclass, field
from functools import partial
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.simulator.events import EventQueue
from splitplace.simulator.processor import Discipline, Footprint, HostMemory, Processor


@dataclass
class Bench:
    """A processor of score 1 (a unit of work takes a millisecond) and when its jobs ended."""

    discipline: Discipline = "shared"
    concurrency: float = 1.0
    memory: HostMemory = field(default_factory=lambda: HostMemory(100.0, 11.0))
    ended: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.events = EventQueue()
        self.processor = Processor(
            self.events, 1.0, self.concurrency, self.memory, lambda used: 10 + 10 * used, self.discipline
        )

    def job(
        self, name: str, at_ms: float, work: float, due_ms: float = 0.0, footprint: Footprint | None = None
    ) -> None:
        def begin() -> None:
            done = partial(self._end, name)
            self.processor.start(work, done, due_ms=due_ms, footprint=footprint)

        self.events.at(at_ms, begin)

    def _end(self, name: str) -> None:
        self.ended[name] = self.events.now_ms

    def run(self) -> dict[str, float]:
        while self.events.next_ms < inf:
            self.events.step()
        return self.ended


def test_two_equal_jobs_share_the_processor_and_take_twice_as_long() -> None:
    bench = Bench()
    bench.job("a", 0, 10)
    bench.job("b", 0, 10)
    assert bench.run() == {"a": 20, "b": 20}


def test_a_job_that_comes_later_slows_the_first_from_then_on() -> None:
    # a alone until 4 (6 left); both at half speed: b's 3 need 6 ms, until 10 (3 left of a); a ends at 13.
    bench = Bench()
    bench.job("a", 0, 10)
    bench.job("b", 4, 3)
    assert bench.run() == {"b": 10, "a": 13}


def test_jobs_up_to_the_concurrency_do_not_slow_each_other() -> None:
    # Two at full speed; from 2 on three at two thirds: b's rest takes 3 ms, then a and c go on alone.
    bench = Bench(concurrency=2.0)
    bench.job("a", 0, 10)
    bench.job("b", 0, 4)
    bench.job("c", 2, 10)
    ended = bench.run()
    assert ended == pytest.approx({"b": 5, "a": 11, "c": 13})


def test_a_change_of_speed_counts_from_its_moment() -> None:
    bench = Bench()
    bench.job("a", 0, 10)
    bench.events.at(4, lambda: bench.processor.set_score(0.5))
    assert bench.run() == {"a": 16}


def test_a_job_that_is_stopped_says_what_is_left_and_frees_the_processor() -> None:
    bench, left = Bench(), []
    bench.job("a", 0, 10)
    bench.events.at(1, lambda: kept.append(bench.processor.start(10, lambda: None)))
    kept: list[object] = []
    bench.events.at(5, lambda: left.append(bench.processor.stop(kept[0])))  # type: ignore[arg-type]
    assert bench.run() == {"a": 12}
    assert left == [8]
    assert bench.processor.stop(kept[0]) == 0.0  # type: ignore[arg-type]


def test_with_deadlines_the_earliest_runs_and_interrupts_others() -> None:
    bench = Bench(discipline="deadline")
    bench.job("late", 0, 10, due_ms=100)
    bench.job("early", 4, 3, due_ms=50)
    bench.job("latest", 0, 1, due_ms=200)
    assert bench.run() == {"early": 7, "late": 13, "latest": 14}


def test_swapping_slows_by_the_share_that_does_not_fit() -> None:
    # 200 of 100 bytes: half the accesses take 11 times as long, so 6 times on average.
    assert HostMemory(100.0, 11.0).slowdown(200.0) == 6.0
    assert HostMemory(100.0, 11.0).slowdown(100.0) == 1.0
    bench = Bench()
    bench.job("a", 0, 10, footprint=Footprint("x", 0, 200))
    assert bench.run() == {"a": 60}


def test_jobs_of_one_fragment_hold_its_weights_once() -> None:
    # Together 60 + 20 + 20 bytes fit; were the weights counted twice, 160 would not.
    bench = Bench()
    for name in "ab":
        bench.job(name, 0, 10, footprint=Footprint("same", 60, 20))
    assert bench.run() == {"a": 20, "b": 20}


def test_energy_follows_the_power_curve() -> None:
    # Busy from 2 to 12 s at 20 W, idle for 5 s at 10 W.
    bench = Bench()
    bench.job("a", 2000, 10_000)
    bench.run()
    bench.events.pass_to(15_000)
    usage = bench.processor.measure()
    assert usage.joules == pytest.approx(10 * 20 + 5 * 10)
    assert usage.busy_ms == 10_000


def test_a_host_that_is_off_uses_no_energy() -> None:
    bench = Bench()
    bench.events.at(1000, lambda: bench.processor.set_powered(powered=False))
    bench.events.at(3000, lambda: bench.processor.set_powered(powered=True))
    bench.run()
    bench.events.pass_to(4000)
    assert bench.processor.measure().joules == pytest.approx(2 * 10)
    assert bench.processor.usage.powered_ms == 2000


jobs = st.lists(
    st.tuples(
        st.floats(0, 100).map(lambda x: round(x, 3)),
        st.floats(0.01, 50).map(lambda x: round(x, 3)),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=12,
)


@given(jobs=jobs, discipline=st.sampled_from(["shared", "deadline"]))
def test_work_is_conserved(jobs: list[tuple[float, float, int]], discipline: Discipline) -> None:
    bench = Bench(discipline=discipline)
    for number, (at_ms, work, due_ms) in enumerate(jobs):
        bench.job(str(number), at_ms, work, due_ms)
    ended = bench.run()
    assert len(ended) == len(jobs)
    bench.processor.measure()
    assert bench.processor.usage.busy_ms == pytest.approx(sum(work for _, work, _ in jobs))
    assert bench.processor.running == 0
    # The last job ends as on any processor that never idles while there is work.
    free_ms = 0.0
    for at_ms, work, _ in sorted(jobs):
        free_ms = max(free_ms, at_ms) + work
    assert max(ended.values()) == pytest.approx(free_ms)
