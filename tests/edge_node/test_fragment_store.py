"""The cache of files on disk: nothing wrong is ever given out, and it stays within its bound."""

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile
from splitplace.storage.model_store import StoreError, sha256_of


def put(store: FragmentStore, content: bytes) -> str:
    sha256 = sha256_of(content)
    with store.begin(StoredFile(sha256, len(content))) as partial:
        for chunk in reversed(range(-(-len(content) // CHUNK_BYTES))):
            partial.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
        store.finish(partial, sha256)
    return sha256


def test_chunks_written_in_any_order_make_the_file(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 10 * CHUNK_BYTES)
    content = os.urandom(2 * CHUNK_BYTES + 77)
    sha256 = put(store, content)
    path = store.find(sha256)
    assert path is not None
    assert path.read_bytes() == content
    assert store.files() == (sha256,)


def test_wrong_content_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 1000)
    with store.begin(StoredFile("a" * 64, 5)) as partial:
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
    assert store.files() == (third, first)
    assert store.find(second) is None


def test_a_file_bigger_than_the_whole_cache_is_kept_alone(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 50)
    put(store, b"small")
    big = put(store, b"x" * 100)
    assert store.files() == (big,)


def test_a_restart_finds_complete_files_and_resumes_incomplete_ones(tmp_path: Path) -> None:
    complete = put(FragmentStore(tmp_path, 10 * CHUNK_BYTES), b"content")
    content = os.urandom(3 * CHUNK_BYTES + 5)
    sha256 = sha256_of(content)
    with FragmentStore(tmp_path, 10 * CHUNK_BYTES).begin(StoredFile(sha256, len(content))) as partial:
        assert partial.written == frozenset()
        for chunk in (3, 1):
            partial.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])

    store = FragmentStore(tmp_path, 10 * CHUNK_BYTES)
    assert store.files() == (complete,)
    assert store.find(sha256) is None
    with store.begin(StoredFile(sha256, len(content))) as partial:
        assert partial.written == {1, 3}
        for chunk in (0, 2):
            partial.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
        path = store.finish(partial, sha256)
    assert path.read_bytes() == content
    assert {file.name for file in tmp_path.iterdir()} == {complete, sha256}


def test_the_rest_of_a_file_of_another_size_is_not_used(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 10 * CHUNK_BYTES)
    with store.begin(StoredFile("a" * 64, CHUNK_BYTES)) as partial:
        partial.write(0, b"x" * CHUNK_BYTES)
    with store.begin(StoredFile("a" * 64, 2 * CHUNK_BYTES)) as partial:
        assert partial.written == frozenset()


def test_room_is_made_before_a_file_is_fetched_and_not_by_removing_what_is_being_fetched(
    tmp_path: Path,
) -> None:
    store = FragmentStore(tmp_path, 350)
    put(store, b"a" * 100)
    used = put(store, b"b" * 100)
    with store.begin(StoredFile("c" * 64, 100)) as left:
        left.write(0, b"c" * 100)
    assert store.find(used) is not None
    with store.begin(StoredFile("d" * 64, 100)), store.begin(StoredFile("e" * 64, 100)):
        assert store.files() == (used,)
        with store.begin(StoredFile("f" * 64, 300)):
            names = {path.name[0] for path in tmp_path.glob("*.partial")}
            assert names == {"d", "e", "f"}
            assert store.files() == ()


def test_files_that_are_kept_do_not_make_room_until_nobody_keeps_them(tmp_path: Path) -> None:
    store = FragmentStore(tmp_path, 250)
    shared = sha256_of(b"a" * 100)
    with store.keeping([shared, shared]):
        with store.keeping([shared]):
            put(store, b"a" * 100)
        second, third = (put(store, letter * 200) for letter in (b"b", b"c"))
        assert store.files() == (third, shared)
    assert store.find(second) is None
    last = put(store, b"d" * 200)
    assert store.files() == (last,)


class Disk:
    """Lets files be opened for writing, or not."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.error: OSError | None = None
        self._open = Path.open
        patch.setattr(Path, "open", lambda path, mode="r", *args: self._opened(path, mode, *args))
        patch.setattr(os, "utime", self._refuse_or(os.utime))

    def _refuse_or(self, function: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            self._check()
            return function(*args, **more)

        return call

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _opened(self, path: Path, mode: str, *args: Any) -> Any:
        if set(mode) & set("wax+"):
            self._check()
        return self._open(path, mode, *args)

    def fail(self, number: int) -> None:
        self.error = OSError(number, os.strerror(number))

    def recover(self) -> None:
        self.error = None


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr("splitplace.edge_node.fragment_store.CHECK_EVERY_S", 0.0)
    return Disk(monkeypatch)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_is_said_what_is_there_is_used_and_recovery_is_noticed(
    disk: Disk, tmp_path: Path, number: int
) -> None:
    sha256 = put(FragmentStore(tmp_path, 1000), b"content")
    disk.fail(number)
    store = FragmentStore(tmp_path, 1000)
    assert os.strerror(number) in store.trouble
    assert store.find(sha256) is not None
    store.check()
    assert store.trouble
    disk.recover()
    store.check()
    assert not store.trouble
    assert [path.name for path in tmp_path.iterdir()] == [sha256]


def test_a_folder_that_cannot_be_made_on_a_read_only_disk_is_trouble_and_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    store = FragmentStore(tmp_path / "new", 1000)
    assert "Read-only" in store.trouble
    assert store.files() == ()
    assert store.find("a" * 64) is None


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        FragmentStore(tmp_path / "file", 1000)
