"""The window and the patience of fetching follow a made-up link."""

from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.edge_node.download import Download
from splitplace.edge_node.window import (
    FIRST_PATIENCE_MS,
    MAX_OVERTAKEN,
    MAX_PATIENCE_MS,
    MAX_WINDOW,
    Key,
    Window,
)
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile

FILE = "f"


class SlowLink:
    """A link that carries one chunk after the other, without a real clock."""

    def __init__(self, chunk_ms: float, latency_ms: float, lost: frozenset[int] = frozenset()) -> None:
        self.sent = 0
        self._chunk_ms = chunk_ms
        self._latency_ms = latency_ms
        self._lost = lost
        """Numbers of sendings that do not arrive."""
        self._free_ms = 0.0
        self._coming: list[tuple[float, int]] = []

    def send(self, chunk: int, now_ms: float) -> None:
        self._free_ms = max(self._free_ms, now_ms + self._latency_ms) + self._chunk_ms
        if self.sent not in self._lost:
            self._coming.append((self._free_ms + self._latency_ms, chunk))
        self.sent += 1

    def next_ms(self) -> float:
        return min((arrives_ms for arrives_ms, _ in self._coming), default=float("inf"))

    def arrived(self, now_ms: float) -> list[int]:
        here = [chunk for arrives_ms, chunk in self._coming if arrives_ms <= now_ms]
        self._coming = [each for each in self._coming if each[0] > now_ms]
        return here


def fetch(link: SlowLink, chunks: int) -> float:
    """Return the ms that a download takes."""
    download = Download(StoredFile(FILE, chunks * CHUNK_BYTES), Window())
    now_ms = 0.0
    while not download.is_complete:
        while (wanted := download.wanted(now_ms)) is not None:
            for chunk in range(wanted.first_chunk, wanted.first_chunk + wanted.chunks):
                link.send(chunk, now_ms)
        now_ms = min(link.next_ms(), now_ms + max(1.0, download.next_check_ms(now_ms)))
        for chunk in link.arrived(now_ms):
            download.receive(chunk, CHUNK_BYTES, download.file_bytes, now_ms)
    return now_ms


@settings(deadline=None)
@given(st.floats(1, 3000), st.floats(0, 500), st.integers(1, 100))
def test_without_loss_nothing_is_sent_twice_on_links_from_seven_hundred_kilobits_up(
    chunk_ms: float, latency_ms: float, chunks: int
) -> None:
    link = SlowLink(chunk_ms, latency_ms)
    fetch(link, chunks)
    assert link.sent == chunks


@settings(deadline=None)
@given(st.floats(1, 3000), st.floats(0, 200), st.sets(st.integers(0, 60), max_size=3))
def test_a_lost_chunk_is_asked_for_again_alone(chunk_ms: float, latency_ms: float, lost: set[int]) -> None:
    link = SlowLink(chunk_ms, latency_ms, frozenset(lost))
    fetch(link, 50)
    assert link.sent - 50 <= len(lost) * (MAX_OVERTAKEN + 1)


def test_a_link_is_kept_busy() -> None:
    for chunk_ms, latency_ms in ((2100.0, 5.0), (210.0, 5.0), (21.0, 1.0), (21.0, 50.0)):
        assert fetch(SlowLink(chunk_ms, latency_ms), 60) <= 1.25 * 60 * chunk_ms + 20 * latency_ms


def test_the_window_opens_on_a_fast_link_and_stays_small_on_a_slow_one() -> None:
    fast, slow = Window(), Window()
    for window, chunk_ms in ((fast, 1.0), (slow, 2100.0)):
        now_ms, chunk = 0.0, 0
        for _ in range(200):
            sent = range(chunk, chunk + window.room)
            for each in sent:
                window.request(Key(FILE, each), now_ms)
            for each in sent:
                now_ms += chunk_ms
                window.arrive(Key(FILE, each), now_ms)
            chunk += len(sent)
    assert fast.size == MAX_WINDOW
    assert slow.size <= 2


def test_patience_doubles_with_silence_and_ends_with_the_next_chunk() -> None:
    window, now_ms, patience = Window(), 0.0, []
    for _ in range(6):
        window.request(Key(FILE, 0), now_ms)
        patience.append(window.patience_ms)
        now_ms += window.next_check_ms(now_ms)
        window.expire(now_ms)
    assert patience == [min(MAX_PATIENCE_MS, FIRST_PATIENCE_MS * 2**times) for times in range(6)]
    assert window.silent_rounds == 6
    window.arrive(Key(FILE, 1), now_ms)
    assert window.silent_rounds == 0


def test_a_new_connection_asks_for_all_that_was_on_its_way_at_once() -> None:
    window = Window()
    window.request(Key(FILE, 0), 0.0)
    window.restart()
    assert window.is_repeat(Key(FILE, 0))
    assert window.room == 1


def test_a_download_that_ends_leaves_its_room_to_others() -> None:
    window = Window()
    window.request(Key(FILE, 0), 0.0)
    assert window.room == 0
    window.leave(FILE)
    assert window.room == 1
    assert not window.is_repeat(Key(FILE, 0))
