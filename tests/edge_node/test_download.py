"""Which chunks of a fragment are asked for, taken, and asked for again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.download import (
    MAX_SILENT_ROUNDS,
    PATIENCE_MS,
    WINDOW,
    Download,
    DownloadError,
    Wanted,
)
from splitplace.messages.limits import CHUNK_BYTES


def body_bytes(download: Download, chunk: int) -> int:
    return min(CHUNK_BYTES, download.file_bytes - chunk * CHUNK_BYTES)


def receive(download: Download, chunk: int) -> bool:
    return download.receive(chunk, body_bytes(download, chunk), download.file_bytes)


def test_a_small_file_is_asked_for_once() -> None:
    download = Download(1000)
    assert download.wanted(0.0) == Wanted(0, 1)
    assert download.wanted(0.0) is None
    assert receive(download, 0)
    assert download.is_complete


def test_the_next_window_is_asked_for_while_half_of_the_first_is_on_its_way() -> None:
    download = Download(40 * CHUNK_BYTES)
    assert download.wanted(0.0) == Wanted(0, WINDOW)
    for chunk in range(WINDOW // 2 - 1):
        receive(download, chunk)
        assert download.wanted(0.0) is None
    receive(download, WINDOW // 2 - 1)
    assert download.wanted(0.0) == Wanted(WINDOW, WINDOW // 2)


def test_chunks_that_another_node_asked_for_are_taken_and_not_asked_for_again() -> None:
    download = Download(20 * CHUNK_BYTES)
    for chunk in range(5):
        assert receive(download, chunk)
    assert download.wanted(0.0) == Wanted(5, 15)


def test_chunks_written_by_an_earlier_download_are_not_asked_for() -> None:
    download = Download(3 * CHUNK_BYTES, {0, 2})
    assert download.wanted(0.0) == Wanted(1, 1)
    assert download.receive(1, CHUNK_BYTES, 3 * CHUNK_BYTES)
    assert download.is_complete
    assert Download(3 * CHUNK_BYTES, {0, 1, 2}).is_complete


def test_a_lost_chunk_is_asked_for_again_after_a_while() -> None:
    download = Download(3 * CHUNK_BYTES)
    download.wanted(0.0)
    receive(download, 0)
    receive(download, 2)
    assert download.wanted(PATIENCE_MS - 1) is None
    assert download.next_check_ms(PATIENCE_MS - 1) == 1
    assert download.wanted(PATIENCE_MS) == Wanted(1, 1)


def test_duplicates_and_chunks_of_another_size_or_file_are_not_taken() -> None:
    download = Download(2 * CHUNK_BYTES + 5)
    assert not download.receive(0, CHUNK_BYTES - 1, download.file_bytes)
    assert not download.receive(2, CHUNK_BYTES, download.file_bytes)
    assert not download.receive(0, CHUNK_BYTES, download.file_bytes + 1)
    assert not download.receive(3, 0, download.file_bytes)
    assert download.receive(2, 5, download.file_bytes)
    assert not download.receive(2, 5, download.file_bytes)


def test_it_gives_up_when_nothing_new_comes_for_many_rounds() -> None:
    download = Download(2 * CHUNK_BYTES)
    now_ms = 0.0
    for _ in range(MAX_SILENT_ROUNDS):
        assert download.wanted(now_ms) is not None
        now_ms += PATIENCE_MS
    with pytest.raises(DownloadError, match="2 of 2 chunks"):
        download.wanted(now_ms)


@given(st.integers(1, 60 * CHUNK_BYTES), st.integers(0, 1000), st.floats(0, 0.7))
def test_every_file_arrives_whole_though_chunks_are_lost_reordered_and_repeated(
    file_bytes: int, seed: int, loss: float
) -> None:
    dice = random.Random(seed)
    download = Download(file_bytes)
    taken: set[int] = set()
    now_ms = 0.0
    while not download.is_complete:
        now_ms += 100
        try:
            wanted = download.wanted(now_ms)
        except DownloadError:
            assert loss > 0.2
            return
        if wanted is None:
            continue
        assert wanted.chunks <= WINDOW
        sent = list(range(wanted.first_chunk, wanted.first_chunk + wanted.chunks)) * 2
        dice.shuffle(sent)
        for chunk in sent:
            if dice.random() > loss:
                assert receive(download, chunk) == (chunk not in taken)
                taken.add(chunk)
    assert taken == set(range(download.chunks))
    assert sum(body_bytes(download, chunk) for chunk in taken) == file_bytes
