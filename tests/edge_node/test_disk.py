"""Files and prepared forms share one bound; forms take half at most, and make room first."""

from pathlib import Path

import pytest

from splitplace.edge_node.disk import NodeDisk
from splitplace.edge_node.stage.prepare import MODEL
from splitplace.messages.pieces import StoredFile
from splitplace.storage.model_store import sha256_of

KEYS = [f"{index:064x}" for index in range(6)]


def prepare(disk: NodeDisk, key: str, size: int) -> None:
    with disk.forms.making(key, size) as form:
        (form.folder / MODEL).write_bytes(bytes(size))


def fetch(disk: NodeDisk, content: bytes) -> str:
    sha256 = sha256_of(content)
    with disk.files.begin(StoredFile(sha256, len(content))) as partial:
        partial.write(0, content)
        disk.files.finish(partial, sha256)
    return sha256


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_forms_take_half_of_the_disk_at_most(tmp_path: Path) -> None:
    disk = NodeDisk(tmp_path, 10_000)
    for key in KEYS:
        prepare(disk, key, 1000)
        assert disk.forms.size_bytes <= 5000
    assert len(disk.forms.made()) >= 3


def test_a_form_that_is_made_lets_the_least_recently_used_files_go_before_it_is_written(
    tmp_path: Path,
) -> None:
    disk = NodeDisk(tmp_path, 10_000)
    files = [fetch(disk, bytes([index]) * 3000) for index in range(3)]
    with disk.forms.making(KEYS[0], 4000) as form:
        assert disk.files.files() == (files[2], files[1])
        (form.folder / MODEL).write_bytes(bytes(3500))
    assert size_of(tmp_path) <= 10_000


def test_a_file_that_is_fetched_lets_forms_go_first_but_not_those_that_are_mapped(tmp_path: Path) -> None:
    disk = NodeDisk(tmp_path, 10_000)
    file = fetch(disk, b"a" * 3000)
    prepare(disk, KEYS[0], 2000)
    prepare(disk, KEYS[1], 2000)
    disk.forms.map(KEYS[0])
    other = fetch(disk, b"b" * 4000)
    assert disk.forms.made() == (KEYS[0],)
    assert set(disk.files.files()) == {file, other}
    third = fetch(disk, b"c" * 3000)
    assert disk.forms.made() == (KEYS[0],)
    assert set(disk.files.files()) == {other, third}
    assert size_of(tmp_path) <= 10_000


def test_files_of_a_fragment_that_is_being_prepared_stay(tmp_path: Path) -> None:
    disk = NodeDisk(tmp_path, 10_000)
    file = fetch(disk, b"a" * 4000)
    with disk.files.keeping([file]):
        prepare(disk, KEYS[0], 4500)
        prepare(disk, KEYS[1], 4500)
        assert disk.files.files() == (file,)
    assert disk.forms.made() == (KEYS[1],)


@pytest.mark.parametrize("name", [f"{KEYS[0]}.onnx", f"{KEYS[0]}.partial"])
def test_what_an_older_version_has_left_is_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / "quarantine.json").write_bytes(b"{}")
    NodeDisk(tmp_path, 10_000)
    assert {path.name for path in tmp_path.iterdir()} == {"files", "prepared", "quarantine.json"}


def test_what_a_crash_left_of_a_preparation_is_removed_and_files_stay(tmp_path: Path) -> None:
    file = fetch(NodeDisk(tmp_path, 10_000), b"content")
    half = tmp_path / "prepared" / f"{KEYS[0]}.partial"
    half.mkdir()
    (half / MODEL).write_bytes(b"half")
    disk = NodeDisk(tmp_path, 10_000)
    assert not half.exists()
    assert disk.files.files() == (file,)
