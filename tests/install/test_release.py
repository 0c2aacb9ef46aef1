"""What a release consists of: one version, its notes, archives that are the same for whoever makes them."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from splitplace.bus.service import software_version
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.texts import ROOT, texts

CHANGES = """# Changelog

## [Unreleased]
{unreleased}
## [1.1.0] - 2026-01-02

- New.

## [1.0.0]

- Old.
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notes_of_a_version_are_its_section(release: ModuleType) -> None:
    assert release.notes_of(CHANGES.format(unreleased=""), "1.1.0") == "- New.\n"
    assert release.notes_of(CHANGES.format(unreleased=""), "1.0.0") == "- Old.\n"
    assert release.notes_of(CHANGES.format(unreleased=""), "1.0") == ""


@pytest.mark.parametrize(
    ("version", "unreleased", "count"),
    [("1.1.0", "", 0), ("1.2.0", "", 1), ("1.1.0", "\n- Newest.\n", 1), ("1.2.0", "\n- Newest.\n", 2)],
)
def test_a_version_is_released_once_its_changes_are_written_down(
    release: ModuleType, version: str, unreleased: str, count: int
) -> None:
    assert len(release.complaints(CHANGES.format(unreleased=unreleased), version)) == count


def test_the_version_stands_in_one_place() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    named = re.compile(rf'version = "{re.escape(version)}"|^__version__ =', re.MULTILINE)
    code = [(path, text) for path, text in texts() if path.suffix in {".py", ".service", ".yaml"}]
    assert [str(path) for path, text in code if path.parts[0] != "tests" and named.search(text)] == []
    assert software_version()


def test_an_archive_is_the_same_whenever_it_is_made(release: ModuleType, tmp_path: Path) -> None:
    archives = []
    for moment in (1_000_000_000, 1_700_000_000):
        folder = tmp_path / str(moment)
        (folder / "deep").mkdir(parents=True)
        for name in ("b", "a", "deep/c"):
            (folder / name).write_text(name)
            os.utime(folder / name, (moment, moment))
        archives.append(tmp_path / f"{moment}.tar.gz")
        release.archive(folder, archives[-1], "thing")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        assert tar.getnames() == ["thing/a", "thing/b", "thing/deep/c"]


def test_checksums_are_those_that_sha256sum_checks(release: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one")
    (tmp_path / release.SUMS).write_text(release.sums(tmp_path))
    check = ["sha256sum", "--check", "--strict", release.SUMS]
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    (tmp_path / "one").write_text("two")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1


@pytest.fixture
def made(release: ModuleType, tmp_path: Path) -> tuple[Path, Path]:
    """A small release, and the store that its networks are of."""
    store, site, out = (tmp_path / name for name in ("store", "site", "out"))
    (store / "net" / "pieces").mkdir(parents=True)
    (store / "net" / "pieces" / hashlib.sha256(b"piece").hexdigest()).write_bytes(b"piece")
    (store / "net" / "manifest.json").write_text("{}")
    site.mkdir()
    (site / "index.html").write_text("<p>")
    out.mkdir()
    release.archive(store, out / "splitplace-networks-1.tar.gz", "networks")
    release.archive(site, out / "splitplace-documentation-1.tar.gz", "documentation")
    (out / release.SUMS).write_text(release.sums(out))
    return out, store


def test_a_whole_release_has_no_faults(release: ModuleType, made: tuple[Path, Path]) -> None:
    assert release.faults(*made) == []


def test_a_release_that_was_changed_or_lacks_something_has_faults(
    release: ModuleType, made: tuple[Path, Path], tmp_path: Path
) -> None:
    out, store = made
    (out / "splitplace-1.whl").write_text("later")
    assert "does not fit" in release.faults(*made)[0]
    (out / "splitplace-1.whl").unlink()
    (store / "net" / "labels.txt").write_text("zero")
    assert "net/labels.txt" in release.faults(*made)[0]
    (store / "net" / "pieces" / hashlib.sha256(b"piece").hexdigest()).write_bytes(b"another")
    release.archive(store, out / "splitplace-networks-1.tar.gz", "networks")
    (out / release.SUMS).write_text(release.sums(out))
    assert "not what their names say" in release.faults(*made)[0]
    release.archive(tmp_path / "nothing", out / "splitplace-documentation-1.tar.gz", "documentation")
    assert any("no index.html" in fault for fault in release.faults(*made))


def test_networks_outside_the_repository_have_a_file_each_that_unpacks_into_a_store(
    release: ModuleType, made: tuple[Path, Path], tmp_path: Path
) -> None:
    out, store = made
    further = tmp_path / "further"
    application = ModelStore(SHIPPED_STORE).folder("mnist")
    shutil.copytree(application, further / "mnist")
    (further / "notes").mkdir()
    assert release.applications(further) == [further / "mnist"]
    file = out / "splitplace-network-mnist-1.tar.gz"
    release.archive(further / "mnist", file, "mnist")
    (out / release.SUMS).write_text(release.sums(out))
    assert release.faults(out, store, further) == []
    with tarfile.open(file) as tar:
        tar.extractall(tmp_path / "mine", filter="data")
    unpacked = ModelStore(tmp_path / "mine")
    assert unpacked.missing(unpacked.application("mnist")) == ()

    (further / "mnist" / "labels.txt").write_text("zero")
    assert "mnist/labels.txt" in release.faults(out, store, further)[0]
