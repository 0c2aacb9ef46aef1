"""The cache of fragments on disk: nothing wrong is ever given out, and it stays within its bound."""

import os
from pathlib import Path

import pytest

from bus.store import StoreError, sha256_of
from edge_node.fragment_store import FragmentStore
from messages.limits import CHUNK_BYTES


def put(store: FragmentStore, content: bytes) -> str:
    sha256 = sha256_of(content)
    with store.begin(sha256, len(content)) as partial:
        for chunk in reversed(range(-(-len(content) // CHUNK_BYTES))):
            partial.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
        store.finish(partial, sha256)
    return sha256


def test_pieces_written_in_any_order_make_the_file(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 10 * CHUNK_BYTES)
    content = os.urandom(2 * CHUNK_BYTES + 77)
    sha256 = put(store, content)
    path = store.find(sha256)
    assert path is not None
    assert path.read_bytes() == content
    assert store.fragments() == (sha256,)


def test_wrong_content_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 1000)
    with store.begin("a" * 64, 5) as partial:
        partial.write(0, b"wrong")
        with pytest.raises(StoreError, match="SHA-256"):
            store.finish(partial, "a" * 64)
    assert store.find("a" * 64) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_has_changed_on_disk_is_removed_instead_of_given_out(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 1000)
    sha256 = put(store, b"good content")
    path = store.find(sha256)
    assert path is not None
    path.write_bytes(b"evil content")
    assert store.find(sha256) is None
    assert not path.exists()


def test_the_least_recently_used_files_make_room(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 250)
    first, second = (put(store, letter * 100) for letter in (b"a", b"b"))
    assert store.find(first) is not None
    third = put(store, b"c" * 100)
    assert store.fragments() == (third, first)
    assert store.find(second) is None


def test_a_file_bigger_than_the_whole_cache_is_kept_alone(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 50)
    put(store, b"small")
    big = put(store, b"x" * 100)
    assert store.fragments() == (big,)


def test_a_restart_finds_what_is_complete_and_removes_what_is_not(tmp_path: Path) -> None:
    sha256 = put(FragmentStore(tmp_path, 1000), b"content")
    (tmp_path / f"{'b' * 64}.partial").write_bytes(b"half")
    store = FragmentStore(tmp_path, 1000)
    assert store.find(sha256) is not None
    assert [path.name for path in tmp_path.iterdir()] == [f"{sha256}.onnx"]
