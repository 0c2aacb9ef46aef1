"""The model store: what it reads, what it refuses, and that a save is whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_CATALOGUE_BYTES
from splitplace.storage.model_store import PIECES, ModelStore, StoreError, sha256_of, verify
from tests.support.earlier_store import build_earlier_application
from tests.support.tiny_application import build_tiny_application


def test_a_saved_application_is_read_back_unchanged(tmp_path: Path) -> None:
    saved = build_tiny_application(tmp_path)
    store = ModelStore(tmp_path)
    assert store.applications() == (saved,)
    assert store.application("tiny") == saved


def test_applications_come_in_the_order_of_their_names_and_other_folders_are_passed_over(
    tmp_path: Path,
) -> None:
    for name in ("zebra", "ant"):
        build_tiny_application(tmp_path, name=name)
    (tmp_path / "notes").mkdir()
    assert [application.name for application in ModelStore(tmp_path).applications()] == ["ant", "zebra"]


def test_every_described_file_is_found_and_verifies(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    store = ModelStore(tmp_path)
    for file in application.files:
        path = store.file_path(file.sha256)
        verify(path, file.sha256)


def test_a_changed_file_does_not_verify(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    sha256 = application.files[0].sha256
    path = ModelStore(tmp_path).file_path(sha256)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="has SHA-256"):
        verify(path, sha256)


def test_a_missing_or_too_large_file_does_not_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        verify(tmp_path / "missing.onnx", "0" * 64)
    path = tmp_path / "large.onnx"
    path.write_bytes(b"12345")
    verify(path, sha256_of(b"12345"))
    monkeypatch.setattr("splitplace.storage.model_store.MAX_FILE_BYTES", 4)
    with pytest.raises(StoreError, match="more than the 4"):
        verify(path, sha256_of(b"12345"))


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "0" * 63, "A" * 64, "*" * 64, "0" * 64 + "\n"])
def test_what_is_no_hash_is_refused_before_the_disk_is_asked(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(StoreError, match="is not a SHA-256"):
        ModelStore(tmp_path).file_path(sha256)


def test_an_unknown_file_is_refused(tmp_path: Path) -> None:
    build_tiny_application(tmp_path)
    with pytest.raises(StoreError, match="has no file"):
        ModelStore(tmp_path).file_path("0" * 64)


def test_a_store_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a folder"):
        ModelStore(tmp_path / "missing").applications()


@pytest.mark.parametrize("name", ["", ".", "..", "../tiny", "a/b", "/etc"])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"is not the name|has no application"):
        ModelStore(tmp_path).application(name)


def _without_fragments(manifest: dict[str, Any]) -> None:
    manifest["fragments"] = []


def _of_another_version(manifest: dict[str, Any]) -> None:
    manifest["version"] = 3


def _without_its_last_stage(manifest: dict[str, Any]) -> None:
    manifest["variants"][1]["stages"].pop()


@pytest.mark.parametrize("damage", [_without_fragments, _of_another_version, _without_its_last_stage])
def test_a_damaged_manifest_is_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    build_tiny_application(tmp_path)
    path = tmp_path / "tiny" / "manifest.json"
    manifest = json.loads(path.read_text())
    damage(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="not a valid manifest"):
        ModelStore(tmp_path).applications()


def test_a_field_that_a_newer_version_has_added_to_a_manifest_is_ignored(tmp_path: Path) -> None:
    build_tiny_application(tmp_path)
    path = tmp_path / "tiny" / "manifest.json"
    (before,) = ModelStore(tmp_path).applications()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    assert ModelStore(tmp_path).applications() == (before,)


def test_a_manifest_of_an_earlier_version_says_how_to_convert_it_and_costs_only_its_network(
    tmp_path: Path,
) -> None:
    build_earlier_application(tmp_path)
    tiny = build_tiny_application(tmp_path)
    usable, (broken,) = ModelStore(tmp_path).usable()
    assert usable == (tiny,)
    assert "written by SplitPlace 0.2: run `splitplace models convert " in broken.reason


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{", b"null"])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError, match="not a valid manifest"):
        ModelStore(tmp_path).applications()


def test_a_manifest_beyond_the_size_limit_is_refused_unparsed(tmp_path: Path) -> None:
    build_tiny_application(tmp_path)
    path = tmp_path / "tiny" / "manifest.json"
    path.write_bytes(path.read_bytes() + b" " * MAX_CATALOGUE_BYTES)
    with pytest.raises(StoreError, match="larger than"):
        ModelStore(tmp_path).applications()


def test_a_manifest_in_the_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    build_tiny_application(tmp_path)
    (tmp_path / "tiny").rename(tmp_path / "other")
    with pytest.raises(StoreError, match="unlike its folder"):
        ModelStore(tmp_path).applications()


def test_a_save_takes_exactly_the_described_files(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path / "first")
    contents = [path.read_bytes() for path in (tmp_path / "first" / "tiny" / PIECES).iterdir()]
    store = ModelStore(tmp_path / "second")
    for wrong in (contents[1:], [*contents, b"one more"]):
        with pytest.raises(StoreError, match="not those"):
            store.save(application, wrong)
    assert not any((tmp_path / "second").iterdir())
    store.save(application, iter(contents))
    assert store.applications() == (application,)
    with pytest.raises(StoreError, match="not those"):
        store.save(application, [b"one more", *contents])
    assert store.applications() == (application,)
    assert store.missing(application) == ()


def test_a_save_removes_files_that_are_no_longer_named(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    old = tmp_path / "tiny" / PIECES / ("0" * 64)
    old.write_bytes(b"of an older build")
    of_0_2 = tmp_path / "tiny" / "fragments" / f"{'0' * 64}.onnx"
    of_0_2.parent.mkdir()
    of_0_2.write_bytes(b"of SplitPlace 0.2")
    build_tiny_application(tmp_path)
    assert not of_0_2.parent.exists()
    names = {path.name for path in old.parent.iterdir()}
    assert names == {file.sha256 for file in application.files}


@pytest.fixture
def two_folders(tmp_path: Path) -> ModelStore:
    """Networks of the user before shipped ones; `both` is in both folders."""
    for name in ("own", "both"):
        build_tiny_application(tmp_path / "own", name=name)
    for name in ("shipped", "both"):
        build_tiny_application(tmp_path / "shipped", name=name, milliseconds_per_image=7.0)
    return ModelStore(tmp_path / "own", tmp_path / "shipped")


def test_two_folders_are_read_as_one_and_the_first_wins(two_folders: ModelStore, tmp_path: Path) -> None:
    assert [application.name for application in two_folders.applications()] == ["both", "own", "shipped"]
    assert two_folders.folder("both") == tmp_path / "own" / "both"
    assert two_folders.application("both") == ModelStore(tmp_path / "own").application("both")
    assert two_folders.application("both") in two_folders.applications()
    assert two_folders.folder("shipped") == tmp_path / "shipped" / "shipped"
    assert [two_folders.is_read_only(name) for name in ("own", "both", "shipped")] == [False, False, True]
    assert [two_folders.hides_another(name) for name in ("own", "both", "shipped")] == [False, True, False]
    for application in two_folders.applications():
        for file in application.files:
            verify(two_folders.file_path(file.sha256), file.sha256)


def test_the_first_of_two_folders_may_be_missing_until_something_is_saved(tmp_path: Path) -> None:
    shipped = build_tiny_application(tmp_path / "shipped")
    store = ModelStore(tmp_path / "own", tmp_path / "shipped")
    assert store.applications() == (shipped,)
    contents = [store.file_path(file.sha256).read_bytes() for file in shipped.files]
    store.save(shipped, contents)
    assert store.folder("tiny") == tmp_path / "own" / "tiny"
    with pytest.raises(StoreError, match="is not a folder"):
        ModelStore(tmp_path / "own", tmp_path / "gone").applications()


def test_what_the_user_added_can_be_removed_and_what_is_shipped_cannot(
    two_folders: ModelStore, tmp_path: Path
) -> None:
    two_folders.remove("both")
    assert two_folders.folder("both") == tmp_path / "shipped" / "both"
    with pytest.raises(StoreError, match="comes with SplitPlace"):
        two_folders.remove("both")
    with pytest.raises(StoreError, match="splitplace models list"):
        two_folders.remove("neither")
    two_folders.remove("own")
    assert [application.name for application in two_folders.applications()] == ["both", "shipped"]


def only_in(application: Application, other: Application) -> set[str]:
    """Return the files of an application that another one does not have."""
    return {file.sha256 for file in application.files} - {file.sha256 for file in other.files}


def replaced(root: Path) -> tuple[ModelStore, Application, Application]:
    """A store with an application that has replaced another one, and both of them: the old one first."""
    old = build_tiny_application(root, padding_bytes=1000)
    store = ModelStore(root)
    new = build_tiny_application(root.with_name("elsewhere"), padding_bytes=2000)
    other = ModelStore(root.with_name("elsewhere"))
    store.save(new, [other.file_path(file.sha256).read_bytes() for file in new.files], keep_previous=True)
    assert only_in(old, new)
    return store, old, new


def test_what_was_replaced_comes_back_and_so_does_what_replaced_it(tmp_path: Path) -> None:
    store, old, new = replaced(tmp_path / "store")
    for wanted in (old, new, old):
        before = store.stamp()
        assert store.roll_back("tiny") == wanted
        assert store.application("tiny") == wanted
        assert store.missing(wanted) == ()
        assert store.stamp() != before


def test_the_same_version_saved_again_does_not_displace_the_previous_one(tmp_path: Path) -> None:
    store, old, new = replaced(tmp_path / "store")
    for keep in (True, False):
        store.save(new, [store.file_path(file.sha256).read_bytes() for file in new.files], keep_previous=keep)
    assert store.roll_back("tiny") == old


def test_only_one_version_is_kept(tmp_path: Path) -> None:
    store, old, _ = replaced(tmp_path / "store")
    third = build_tiny_application(tmp_path / "third", padding_bytes=3000)
    contents = [ModelStore(tmp_path / "third").file_path(file.sha256).read_bytes() for file in third.files]
    store.save(third, contents, keep_previous=True)
    assert len(store.missing(old)) == len(only_in(old, third))


def test_an_application_without_a_previous_version_stays_as_it_is(tmp_path: Path) -> None:
    application = build_tiny_application(tmp_path)
    store = ModelStore(tmp_path)
    with pytest.raises(StoreError, match="no previous version"):
        store.roll_back("tiny")
    assert store.application("tiny") == application


def test_a_previous_version_whose_files_are_damaged_is_refused(tmp_path: Path) -> None:
    store, old, new = replaced(tmp_path / "store")
    store.file_path(min(only_in(old, new))).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="expected"):
        store.roll_back("tiny")
    assert store.application("tiny") == new
