"""Backups: what is in them, that they are whole although others write, and that a restore loses nothing."""

import contextlib
import io
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest

from splitplace.storage.backup import BackupError, restore, save
from splitplace.storage.exclusive import exclusive
from splitplace.storage.paths import Paths


def filled(folder: Path) -> Paths:
    """A state folder with something of everything."""
    paths = Paths(folder, folder / "store")
    for place in (paths.splitter_state, paths.placer_state, paths.calibration):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"learnt": place.name}))
    (paths.secured / "users").mkdir(parents=True, mode=0o700)
    (paths.secured / "users" / "gateway.toml").touch(0o600)
    (paths.own_store / "mine" / "pieces").mkdir(parents=True)
    (paths.own_store / "mine" / "manifest.json").write_text("{}")
    paths.gateway_client_id.write_text("secret")
    (paths.state_dir / "log").mkdir()
    with contextlib.closing(sqlite3.connect(paths.gateway_journal)) as journal:
        journal.execute("CREATE TABLE tasks (key TEXT)")
        journal.execute("INSERT INTO tasks VALUES ('camera.1')")
        journal.commit()
    return paths


def keys(paths: Paths) -> list[str]:
    with contextlib.closing(sqlite3.connect(paths.gateway_journal)) as journal:
        return [key for (key,) in journal.execute("SELECT key FROM tasks")]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("gateway.sqlite3")
    }


def test_what_was_saved_comes_back_on_another_machine(tmp_path: Path) -> None:
    here = filled(tmp_path / "here")
    saved = save(here, tmp_path / "copy.tar.gz", software="1.2.3")
    there = Paths(tmp_path / "there", tmp_path / "elsewhere" / "store")
    found, before = restore(there, tmp_path / "copy.tar.gz")
    assert (found.software, found.names, before) == ("1.2.3", saved.names, None)
    assert keys(there) == ["camera.1"]
    assert contents(there.state_dir) | contents(there.own_store.parent) == contents(here.state_dir)
    for name in ("users", "users/gateway.toml"):
        assert (there.secured / name).stat().st_mode == (here.secured / name).stat().st_mode


def test_what_links_lead_to_is_saved_with_its_content(tmp_path: Path) -> None:
    here = filled(tmp_path / "here")
    here.own_store.rename(tmp_path / "disk")
    here.own_store.symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "mine" / "copy.json").hardlink_to(tmp_path / "disk" / "mine" / "manifest.json")
    save(here, tmp_path / "copy.tar.gz", software="1")
    there = Paths(tmp_path / "there", tmp_path / "there" / "store")
    restore(there, tmp_path / "copy.tar.gz")
    assert not there.own_store.is_symlink()
    assert contents(there.own_store) == {"mine/manifest.json": b"{}", "mine/copy.json": b"{}"}


def test_only_its_owner_may_read_a_backup(tmp_path: Path) -> None:
    save(filled(tmp_path / "here"), tmp_path / "copy.tar.gz", software="1")
    assert (tmp_path / "copy.tar.gz").stat().st_mode & 0o777 == 0o600


def test_a_journal_is_copied_as_it_is_at_one_moment_although_a_gateway_writes(tmp_path: Path) -> None:
    paths = filled(tmp_path)
    with contextlib.closing(sqlite3.connect(paths.gateway_journal)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO tasks VALUES ('camera.2')")
        writer.commit()
        writer.execute("INSERT INTO tasks VALUES ('camera.3')")  # not committed
        save(paths, tmp_path / "copy.tar.gz", software="1")
        writer.commit()
    assert keys(paths) == ["camera.1", "camera.2", "camera.3"]
    restore(paths, tmp_path / "copy.tar.gz")
    assert keys(paths) == ["camera.1", "camera.2"]


def test_a_restore_keeps_what_was_there_before(tmp_path: Path) -> None:
    paths = filled(tmp_path / "state")
    save(paths, tmp_path / "copy.tar.gz", software="1")
    paths.splitter_state.write_text("later")
    (paths.own_store / "later").mkdir()
    paths.gateway_journal.with_name("gateway.sqlite3-wal").write_bytes(b"of the later journal")
    _, before = restore(paths, tmp_path / "copy.tar.gz")
    assert before is not None
    assert (before / "splitter.json").read_text() == "later"
    assert (before / "store" / "later").is_dir()
    assert (before / "gateway.sqlite3-wal").exists()
    assert not (paths.own_store / "later").exists()
    assert not paths.gateway_journal.with_name("gateway.sqlite3-wal").exists()
    assert keys(paths) == ["camera.1"]
    _, again = restore(paths, tmp_path / "copy.tar.gz")
    assert again not in {before, None}


def test_nothing_is_put_back_below_a_gateway_that_runs(tmp_path: Path) -> None:
    paths = filled(tmp_path / "state")
    save(paths, tmp_path / "copy.tar.gz", software="1")
    paths.splitter_state.write_text("later")
    with (
        exclusive(paths.gateway_journal.with_name("gateway.sqlite3.lock")),
        pytest.raises(BackupError, match="stop all parts first"),
    ):
        restore(paths, tmp_path / "copy.tar.gz")
    assert paths.splitter_state.read_text() == "later"


def test_an_empty_folder_makes_no_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="nothing to keep"):
        save(Paths(tmp_path, tmp_path / "store"), tmp_path / "copy.tar.gz", software="1")
    assert not (tmp_path / "copy.tar.gz").exists()


def archive(
    file: Path, *entries: tuple[tarfile.TarInfo, bytes], names: tuple[str, ...] = ("secure",)
) -> Path:
    """An archive that somebody else made."""
    facts = json.dumps({"version": 1, "software": "1", "made_unix_s": 0.0, "names": names}).encode()
    with tarfile.open(file, "w:gz") as tar:
        for entry, content in ((tarfile.TarInfo("backup.json"), facts), *entries):
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("secure/../../outside"),
        tarfile.TarInfo("/outside"),
        tarfile.TarInfo("log/outside"),
        link("secure/outside", "/etc"),
    ],
    ids=lambda entry: entry.name,
)
def test_an_archive_of_somebody_else_writes_nowhere_else(tmp_path: Path, entry: tarfile.TarInfo) -> None:
    paths = filled(tmp_path / "state")
    before = contents(tmp_path / "state")
    with pytest.raises(BackupError):
        restore(paths, archive(tmp_path / "copy.tar.gz", (entry, b"")))
    assert contents(tmp_path / "state") == before
    assert not (tmp_path / "outside").exists()


def test_a_damaged_archive_changes_nothing(tmp_path: Path) -> None:
    paths = filled(tmp_path / "state")
    before = contents(tmp_path / "state")
    whole = tmp_path / "copy.tar.gz"
    save(paths, whole, software="1")
    content = whole.read_bytes()
    for damaged in (
        b"",
        b"no archive",
        content[: len(content) // 2],
        content[:-9],
        content[:200] + content[205:],
    ):
        whole.write_bytes(damaged)
        with pytest.raises(BackupError, match=r"is (damaged( or not complete)?|no backup of SplitPlace)"):
            restore(paths, whole)
    with pytest.raises(BackupError, match="not complete"):
        restore(paths, archive(whole, names=("secure", "store")))
    missing = tmp_path / "missing.tar.gz"
    with pytest.raises(BackupError, match=f"^{missing}: No such file or directory$"):
        restore(paths, missing)
    assert contents(tmp_path / "state") == before
    assert list((tmp_path / "state").glob(".restoring-*")) == []


def test_a_backup_of_a_later_version_names_it(tmp_path: Path) -> None:
    file = archive(tmp_path / "copy.tar.gz", names=("secure", "something new"))
    with pytest.raises(BackupError, match="made by SplitPlace 1: restore it with that version"):
        restore(Paths(tmp_path / "state", tmp_path / "store"), file)
