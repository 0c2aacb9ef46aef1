"""Speed of a link from the bytes that flow over it, on a virtual link."""

import pytest

from splitplace.edge_node.link_meter import SMALL_BYTES, LinkMeter
from splitplace.messages.limits import CHUNK_BYTES

MBIT = (1.0, 10.0, 100.0)


def bytes_per_ms(megabits: float) -> float:
    return megabits * 125.0


class VirtualLink:
    """A link of a given speed and round trip, and a node's meter on it."""

    def __init__(self, megabits: float, *, up: float | None = None, round_trip_ms: float = 4.0) -> None:
        self.meter = LinkMeter()
        self.down, self.up = bytes_per_ms(megabits), bytes_per_ms(megabits if up is None else up)
        self.round_trip_ms = round_trip_ms
        self.now_ms = 0.0

    def publish(self, *sizes: int) -> None:
        """Send publications at once; each is acknowledged when the broker has it."""
        began_ms = self.now_ms
        alone = [self.meter.sending() for _ in sizes]
        for size, is_alone in zip(sizes, alone, strict=True):
            self.now_ms += size / self.up
            acknowledged_ms = self.now_ms + self.round_trip_ms
            self.meter.acknowledged(size, began_ms, acknowledged_ms, alone=is_alone)
        self.now_ms += self.round_trip_ms

    def fetch(self, chunks: int, window: int) -> None:
        """Fetch a file with a number of chunks on their way."""
        requested = 0
        free_ms = self.now_ms
        requested_ms: dict[int, float] = {}
        for chunk in range(chunks):
            while requested < min(chunks, chunk + window):
                self.meter.requested("file", requested, self.now_ms)
                requested_ms[requested] = self.now_ms
                requested += 1
            free_ms = max(free_ms, requested_ms[chunk] + self.round_trip_ms) + CHUNK_BYTES / self.down
            self.now_ms = free_ms
            self.meter.chunk("file", chunk, CHUNK_BYTES, self.now_ms)

    @property
    def megabits(self) -> tuple[float | None, float | None]:
        """What was measured towards the node and from it, in Mbit/s."""
        figures = self.meter.figures()
        down, up = figures.down_megabytes_per_second, figures.up_megabytes_per_second
        return (None if down is None else 8 * down, None if up is None else 8 * up)


def test_nothing_is_known_before_anything_flows_but_what_the_owner_says() -> None:
    assert VirtualLink(1.0).megabits == (None, None)
    figures = LinkMeter(0.125).figures()
    assert (figures.up_megabytes_per_second, figures.down_megabytes_per_second) == (0.125, 0.125)


@pytest.mark.parametrize("megabits", MBIT)
@pytest.mark.parametrize("window", [1, 2, 8])
def test_the_download_of_a_fragment_tells_the_speed_towards_the_node(megabits: float, window: int) -> None:
    link = VirtualLink(megabits)
    link.publish(100)
    link.fetch(20, window)
    down, up = link.megabits
    assert down == pytest.approx(megabits, rel=0.02)
    assert up is None


@pytest.mark.parametrize("megabits", MBIT)
@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_acknowledgements_tell_the_speed_from_the_node(megabits: float, at_once: int) -> None:
    link = VirtualLink(100.0, up=megabits)
    link.publish(100)
    for _ in range(5):
        link.publish(*[CHUNK_BYTES] * at_once)
    assert link.megabits[1] == pytest.approx(megabits, rel=0.02)


def test_the_round_trip_is_the_median_of_small_publications_that_waited_for_nothing() -> None:
    link = VirtualLink(10.0, round_trip_ms=7.0)
    link.publish(CHUNK_BYTES, SMALL_BYTES)
    assert link.meter.figures().round_trip_ms is None
    for _ in range(5):
        link.publish(10)
    assert link.meter.figures().round_trip_ms == pytest.approx(7.0, rel=0.01)


def test_frames_of_a_run_tell_the_speed_and_single_ones_do_not() -> None:
    link = VirtualLink(1.0)
    for number in range(20):
        link.now_ms += 100.0
        link.meter.frame(f"task {number}", CHUNK_BYTES, link.now_ms)
    assert link.megabits[0] is None
    for _ in range(10):
        link.now_ms += CHUNK_BYTES / link.down
        link.meter.frame("task 19", CHUNK_BYTES, link.now_ms)
    assert link.megabits[0] == pytest.approx(1.0)


def test_a_sender_that_is_slow_for_a_moment_does_not_make_a_fast_link_slow() -> None:
    link = VirtualLink(1000.0)
    link.fetch(20, 8)
    for number in range(100):
        link.now_ms += 15.0
        link.meter.frame("task", 64 * 1024, link.now_ms + number)
    assert link.megabits[0] == pytest.approx(1000.0, rel=0.2)


def test_a_link_that_changes_is_followed_within_a_few_megabytes() -> None:
    link = VirtualLink(100.0)
    link.fetch(40, 8)
    link.down = link.up = bytes_per_ms(10.0)
    link.fetch(40, 8)
    link.publish(*[CHUNK_BYTES] * 40)
    down, up = link.megabits
    assert down == pytest.approx(10.0, rel=0.1)
    assert up == pytest.approx(10.0, rel=0.1)


def test_old_measurements_lose_their_weight_with_time() -> None:
    link = VirtualLink(10.0)
    link.fetch(40, 8)
    link.now_ms += 3_600_000.0
    link.down = bytes_per_ms(1.0)
    link.fetch(1, 1)
    assert link.megabits[0] == pytest.approx(1.0, rel=0.05)


def test_chunks_that_others_requested_and_small_messages_tell_nothing() -> None:
    link = VirtualLink(10.0)
    link.meter.chunk("file", 3, CHUNK_BYTES, 1000.0)
    link.meter.requested("file", 4, 1000.0)
    link.meter.forget("file")
    link.meter.chunk("file", 4, CHUNK_BYTES, 5000.0)
    link.publish(5000)
    assert link.megabits == (None, None)
