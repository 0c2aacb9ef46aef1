"""Which chunks of a file are asked for, taken, and asked for again."""

import random
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.edge_node.download import MAX_REQUEST, MAX_SILENT_ROUNDS, Download, DownloadError, Wanted
from splitplace.edge_node.window import FIRST_PATIENCE_MS, Window
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile


def begin(file_bytes: int, written: Collection[int] = (), window: Window | None = None) -> Download:
    return Download(StoredFile("f", file_bytes), window or Window(), written)


def body_bytes(download: Download, chunk: int) -> int:
    return min(CHUNK_BYTES, download.file_bytes - chunk * CHUNK_BYTES)


def receive(download: Download, chunk: int, now_ms: float = 0.0) -> bool:
    return download.receive(chunk, body_bytes(download, chunk), download.file_bytes, now_ms)


def test_a_small_file_is_asked_for_once() -> None:
    download = begin(1000)
    assert download.wanted(0.0) == Wanted(0, 1)
    assert download.wanted(0.0) is None
    assert receive(download, 0)
    assert download.is_complete


def test_twice_as_much_is_asked_for_with_every_chunk_that_came_fast() -> None:
    download = begin(40 * CHUNK_BYTES)
    assert download.wanted(0.0) == Wanted(0, 1)
    receive(download, 0)
    assert download.wanted(0.0) == Wanted(1, 2, follows=True)
    receive(download, 1)
    receive(download, 2)
    assert download.wanted(0.0) == Wanted(3, 4, follows=True)


def test_chunks_that_another_node_asked_for_are_taken_and_not_asked_for_again() -> None:
    download = begin(20 * CHUNK_BYTES)
    for chunk in range(5):
        assert receive(download, chunk)
    assert download.wanted(0.0) == Wanted(5, 1)


def test_chunks_written_by_an_earlier_download_are_not_asked_for() -> None:
    download = begin(3 * CHUNK_BYTES, {0, 2})
    assert download.wanted(0.0) == Wanted(1, 1)
    assert receive(download, 1)
    assert download.is_complete
    assert begin(3 * CHUNK_BYTES, {0, 1, 2}).is_complete


def test_a_lost_chunk_is_asked_for_again_after_a_while() -> None:
    download = begin(3 * CHUNK_BYTES)
    assert download.wanted(0.0) == Wanted(0, 1)
    assert download.wanted(FIRST_PATIENCE_MS - 1) is None
    assert download.next_check_ms(FIRST_PATIENCE_MS - 1) == 1
    assert download.wanted(FIRST_PATIENCE_MS) == Wanted(0, 1)


def test_a_chunk_that_could_not_be_kept_is_asked_for_as_a_lost_one() -> None:
    download = begin(2 * CHUNK_BYTES)
    download.wanted(0.0)
    receive(download, 0)
    download.wanted(0.0)
    download.drop(1, 0.0)
    assert download.wanted(0.0) == Wanted(1, 1, follows=False)


def test_duplicates_and_chunks_of_another_size_or_file_are_not_taken() -> None:
    download = begin(2 * CHUNK_BYTES + 5)
    assert not download.receive(0, CHUNK_BYTES - 1, download.file_bytes, 0.0)
    assert not download.receive(2, CHUNK_BYTES, download.file_bytes, 0.0)
    assert not download.receive(0, CHUNK_BYTES, download.file_bytes + 1, 0.0)
    assert not download.receive(3, 0, download.file_bytes, 0.0)
    assert download.receive(2, 5, download.file_bytes, 0.0)
    assert not download.receive(2, 5, download.file_bytes, 0.0)


def test_it_gives_up_when_nothing_comes_for_many_rounds_and_the_next_download_does_not_pay_for_it() -> None:
    window = Window()
    download = begin(2 * CHUNK_BYTES, window=window)
    now_ms = 0.0
    for _ in range(MAX_SILENT_ROUNDS):
        assert download.wanted(now_ms) is not None
        now_ms += download.next_check_ms(now_ms)
    with pytest.raises(DownloadError, match="2 of 2 chunks"):
        download.wanted(now_ms)
    download.end()
    again = begin(2 * CHUNK_BYTES, window=window)
    assert again.wanted(now_ms) == Wanted(0, 1)
    assert again.next_check_ms(now_ms) == FIRST_PATIENCE_MS


def test_downloads_share_one_window() -> None:
    window = Window()
    first = Download(StoredFile("a", CHUNK_BYTES), window)
    second = Download(StoredFile("b", CHUNK_BYTES), window)
    assert first.wanted(0.0) == Wanted(0, 1)
    assert second.wanted(0.0) is None
    receive(first, 0)
    assert second.wanted(0.0) == Wanted(0, 1)


@settings(deadline=None)
@given(st.integers(1, 60 * CHUNK_BYTES), st.integers(0, 1000), st.floats(0, 0.7))
def test_every_file_arrives_whole_though_chunks_are_lost_reordered_and_repeated(
    file_bytes: int, seed: int, loss: float
) -> None:
    dice = random.Random(seed)
    download = begin(file_bytes)
    taken: set[int] = set()
    now_ms = 0.0
    while not download.is_complete:
        now_ms += 100
        try:
            wanted = download.wanted(now_ms)
        except DownloadError:
            assert loss > 0.1
            return
        if wanted is None:
            continue
        assert wanted.chunks <= MAX_REQUEST
        sent = list(range(wanted.first_chunk, wanted.first_chunk + wanted.chunks)) * 2
        dice.shuffle(sent)
        for chunk in sent:
            if dice.random() > loss:
                assert receive(download, chunk, now_ms) == (chunk not in taken)
                taken.add(chunk)
    assert taken == set(range(download.chunks))
    assert sum(body_bytes(download, chunk) for chunk in taken) == file_bytes
