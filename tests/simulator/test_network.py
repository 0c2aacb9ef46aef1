from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.simulator.events import Action, Event, EventQueue
from splitplace.simulator.network import Link, Network

MEGABYTE = 1e6


class Wires:
    """Links of 1 MB/s each (1000 bytes a millisecond) and when transfers ended."""

    def __init__(self, *names: str) -> None:
        self.events = EventQueue()
        self.network = Network(self.events)
        self.links = {name: Link(1.0) for name in names}
        self.ended: dict[str, float] = {}

    def send(self, name: str, at_ms: float, size: float, *over: str) -> None:
        links = tuple(self.links[link] for link in over)

        def begin() -> None:
            self.network.send(size, links, lambda: self.ended.update({name: self.events.now_ms}))

        self.events.at(at_ms, begin)

    def run(self) -> dict[str, float]:
        while self.events.next_ms < inf:
            self.events.step()
        return self.ended


def test_a_transfer_alone_gets_the_whole_bandwidth() -> None:
    wires = Wires("a")
    wires.send("x", 0, MEGABYTE, "a")
    assert wires.run() == {"x": 1000}


def test_transfers_on_one_link_share_it() -> None:
    # Alone until 500 ms (half is left), then at half speed: y's 250 kB take 500 ms, x's rest 250 ms more.
    wires = Wires("a")
    wires.send("x", 0, MEGABYTE, "a")
    wires.send("y", 500, MEGABYTE / 4, "a")
    assert wires.run() == pytest.approx({"y": 1000, "x": 1250})


def test_a_burst_over_one_link_costs_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    wires, planned = Wires("a"), 0
    plan = EventQueue.at

    def counted(self: EventQueue, time_ms: float, action: Action) -> Event:
        nonlocal planned
        planned += 1
        return plan(self, time_ms, action)

    monkeypatch.setattr(EventQueue, "at", counted)
    for number in range(100):
        wires.send(f"{number}", 0, MEGABYTE + number, "a")
    ended = wires.run()
    assert ended["0"] == pytest.approx(100_000)
    assert ended["99"] == pytest.approx(100 * 1000 + sum(range(100)) / 1000, rel=1e-6)
    assert planned < 100 * 100 * 0.6  # each of 100 ends makes those that are left faster


def test_the_most_crowded_link_sets_the_pace() -> None:
    wires = Wires("a", "b", "c")
    wires.send("x", 0, MEGABYTE, "a", "c")
    wires.send("y", 0, MEGABYTE, "b", "c")
    assert wires.run() == {"x": 2000, "y": 2000}


def test_a_change_of_bandwidth_counts_from_its_moment() -> None:
    wires = Wires("a")
    wires.send("x", 0, MEGABYTE, "a")
    wires.events.at(500, lambda: wires.network.set_bandwidth(wires.links["a"], 0.25))
    assert wires.run() == {"x": 2500}


def test_a_link_without_bandwidth_holds_transfers_until_it_has_some() -> None:
    wires = Wires("a")
    wires.network.set_bandwidth(wires.links["a"], 0.0)
    wires.send("x", 0, MEGABYTE, "a")
    wires.events.at(500, lambda: wires.network.set_bandwidth(wires.links["a"], 1.0))
    assert wires.run() == {"x": 1500}


def test_a_transfer_that_is_broken_off_says_what_is_left_and_frees_its_links() -> None:
    wires = Wires("a")
    wires.send("x", 0, MEGABYTE, "a")
    broken = wires.network.send(MEGABYTE, (wires.links["a"],), lambda: None)
    left = []
    wires.events.at(1000, lambda: left.append(wires.network.stop(broken)))
    assert wires.run() == {"x": 1500}
    assert left == [MEGABYTE / 2]
    assert wires.network.stop(broken) == 0.0


@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(1, 10**6), st.sampled_from(["a", "b", "c"])),
        min_size=1,
        max_size=10,
    )
)
def test_no_link_ever_carries_more_than_it_can(transfers: list[tuple[int, int, str]]) -> None:
    wires = Wires("a", "b", "c", "shared")
    for number, (at_ms, size, link) in enumerate(transfers):
        wires.send(str(number), at_ms, size, link, "shared")
    while wires.events.next_ms < inf:
        wires.events.step()
        for crossed in wires.links.values():
            assert sum(transfer.rate for transfer in crossed.transfers) <= crossed.bytes_per_ms * (1 + 1e-9)
    assert len(wires.ended) == len(transfers)
    # All of it crossed one link, which needs at least this long.
    assert max(wires.ended.values()) >= sum(size for _, size, _ in transfers) / 1000 * (1 - 1e-9)
