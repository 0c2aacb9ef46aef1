"""Which chunks the repository sends, and in which order."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import FragmentRequest
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.services.splitter.due_chunks import MAX_DUE_OF_NODE, Chunk, DueChunks

FILE, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"x", b"y"))
FILE_BYTES = 200 * CHUNK_BYTES


def request(
    first: int, chunks: int, *, node: str = "n", file: str = FILE, follows: bool = False
) -> FragmentRequest:
    return FragmentRequest(node=node, fragment=file, first_chunk=first, chunks=chunks, follows=follows)


def taken(due: DueChunks) -> list[int]:
    return [due.next().number for _ in range(len(due))]


def test_chunks_beyond_the_end_are_not_due_and_what_is_due_is_bounded() -> None:
    due = DueChunks(max_due=5)
    for wanted in (request(1, 64), request(0, 64), request(3, 64), request(2**40, 64)):
        due.ask(wanted, 3 * CHUNK_BYTES)
    assert len(due) == 3
    due.ask(request(0, 64), 99 * CHUNK_BYTES)
    assert taken(due) == [1, 2, 0, 3, 4]
    due.ask(request(0, 1), CHUNK_BYTES)
    assert due.next() == Chunk(FILE, 0)
    with pytest.raises(KeyError):
        due.next()


def test_nodes_take_turns_so_that_a_long_queue_delays_no_other_node() -> None:
    due = DueChunks()
    due.ask(request(0, 64, node="greedy"), FILE_BYTES)
    due.ask(request(100, 2, node="modest", file=OTHER), FILE_BYTES)
    assert [due.next() for _ in range(4)] == [
        Chunk(FILE, 0),
        Chunk(OTHER, 100),
        Chunk(FILE, 1),
        Chunk(OTHER, 101),
    ]


def test_one_node_has_no_more_than_its_share_of_the_queue() -> None:
    due = DueChunks()
    for first in range(0, 200, 50):
        due.ask(request(first, 50), FILE_BYTES)
    assert len(due) == MAX_DUE_OF_NODE


def test_a_chunk_that_two_nodes_wait_for_is_sent_once() -> None:
    due = DueChunks()
    due.ask(request(0, 3, node="a"), FILE_BYTES)
    due.ask(request(0, 3, node="b"), FILE_BYTES)
    assert sorted(taken_until_empty(due)) == [0, 1, 2]


def taken_until_empty(due: DueChunks) -> list[int]:
    found = []
    while due:
        found.append(due.next().number)
    return found


def test_what_was_sent_while_a_node_listened_is_on_its_way_unless_the_node_calls_it_lost() -> None:
    due = DueChunks()
    due.ask(request(0, 1, node="slow"), FILE_BYTES)
    due.ask(request(0, 4, node="fast"), FILE_BYTES)
    taken_until_empty(due)
    due.ask(request(1, 2, node="slow", follows=True), FILE_BYTES)
    assert not due
    due.ask(request(1, 1, node="slow"), FILE_BYTES)
    assert taken_until_empty(due) == [1]


def test_a_node_that_begins_to_listen_gets_what_was_sent_before() -> None:
    due = DueChunks()
    due.ask(request(0, 2, node="early"), FILE_BYTES)
    taken_until_empty(due)
    due.ask(request(0, 1, node="late"), FILE_BYTES)
    due.ask(request(1, 1, node="late", follows=True), FILE_BYTES)
    assert taken_until_empty(due) == [0, 1]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(1, 20), st.booleans()), max_size=30
    )
)
def test_the_count_of_due_chunks_is_exact_and_none_is_due_twice(
    asked: list[tuple[str, int, int, bool]],
) -> None:
    due = DueChunks(max_due=50)
    for node, first, chunks, follows in asked:
        due.ask(request(first, chunks, node=node, follows=follows), 30 * CHUNK_BYTES)
    found = taken_until_empty(due)
    assert len(found) == len(set(found)) <= 50
    assert len(due) == 0
