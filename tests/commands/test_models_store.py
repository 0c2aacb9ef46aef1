"""The user's networks and the shipped ones, by the commands that need nothing but the store."""

import json
from pathlib import Path
from unittest.mock import Mock
from zipfile import ZipFile

import pytest

from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.commands import exit_code, measure_quickly
from tests.support.tiny_application import build_tiny_application


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of networks of the user: a new one, and one named as a shipped one is."""
    folder = tmp_path / "own"
    monkeypatch.setenv("SPLITPLACE_OWN_STORE", str(folder))
    for name in ("tiny", "mnist"):
        build_tiny_application(folder, name=name)
    return folder


def run(*arguments: object, code: int = 0) -> None:
    assert exit_code("models", *arguments) == code


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Path]:
    """The folder of each application by its name, as `models list --json` prints them."""
    capsys.readouterr()
    run("list", "--json", *arguments)
    found = json.loads(capsys.readouterr().out)
    return {each["name"]: Path(each["folder"]) for each in found["applications"]}


def test_list_shows_both_stores_and_where_each_application_lies(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys) == {
        "tiny": own / "tiny",
        "mnist": own / "mnist",
        "cifar100": SHIPPED_STORE / "cifar100",
        "fashionmnist": SHIPPED_STORE / "fashionmnist",
        "resnet50": SHIPPED_STORE / "resnet50",
    }
    run("list")
    shown = capsys.readouterr().out
    assert f"own: {own}" in shown
    assert f"shipped: {SHIPPED_STORE}" in shown


def test_a_store_that_is_named_is_the_only_one(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tiny_application(tmp_path / "other", name="alone")
    assert listed(capsys, "--store", tmp_path / "other") == {"alone": tmp_path / "other" / "alone"}
    monkeypatch.setenv("SPLITPLACE_STORE", str(own))
    assert listed(capsys) == {"tiny": own / "tiny", "mnist": own / "mnist"}


def test_removing_an_own_network_brings_the_shipped_one_back_and_that_stays(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("remove", "mnist", "--yes")
    assert listed(capsys)["mnist"] == SHIPPED_STORE / "mnist"
    assert not (own / "mnist").exists()
    run("remove", "mnist", "--yes", code=1)
    assert "comes with SplitPlace and stays" in capsys.readouterr().err
    assert (SHIPPED_STORE / "mnist" / "manifest.json").is_file()


def test_measurements_of_this_machine_are_stored_in_the_own_store(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_quickly(monkeypatch)
    run("remove", "mnist", "--yes")
    shipped = ModelStore(SHIPPED_STORE).application("mnist")
    run("profile", "mnist", "--write")
    assert listed(capsys)["mnist"] == own / "mnist"
    assert ModelStore(SHIPPED_STORE).application("mnist") == shipped
    names = [fragment.sha256 for fragment in shipped.fragments]
    written = ModelStore(own).application("mnist")
    assert [fragment.sha256 for fragment in written.fragments] == names
    assert all(fragment.memory is not None for fragment in written.fragments)
    assert written.reference_score != shipped.reference_score


def test_times_stay_where_only_the_rest_is_to_be_measured(own: Path) -> None:
    build_tiny_application(own)
    stored = ModelStore(own).application("tiny")
    run("profile", "tiny", "--write", "--keep-times")
    written = ModelStore(own).application("tiny")
    assert written.reference_score == stored.reference_score
    for before, now in zip(stored.fragments, written.fragments, strict=True):
        assert now.memory is not None
        assert now.milliseconds_per_image == before.milliseconds_per_image


def test_an_archive_that_cannot_be_written_is_explained(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("export", "tiny", own / "tiny" / "manifest.json" / "x.zip", code=1)
    assert "cannot be written" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZipFile, "write", Mock(side_effect=OSError(28, "No space left on device")))
        run("export", "tiny", tmp_path / "tiny.zip", code=1)
    assert list(tmp_path.glob("*tiny.zip*")) == [], "half an archive is left"
    run("export", "tiny", tmp_path / "tiny.zip")
    assert (tmp_path / "tiny.zip").is_file()


def test_a_network_is_rolled_back_and_an_archive_has_only_the_version_in_place(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, elsewhere = ModelStore(own), ModelStore(tmp_path / "elsewhere")
    old = store.application("tiny")
    new = build_tiny_application(elsewhere.root, padding_bytes=50)
    store.save(new, [elsewhere.file_path(file.sha256).read_bytes() for file in new.files], keep_previous=True)
    (own / "tiny" / "samples.npz").write_bytes(b"images")
    for wanted in (old, new):
        run("rollback", "tiny")
        assert "in place again: tiny" in capsys.readouterr().out
        assert store.application("tiny") == wanted
        run("export", "tiny", tmp_path / "tiny.zip")
        with ZipFile(tmp_path / "tiny.zip") as archive:
            names = {Path(name).name for name in archive.namelist()}
        assert names == {"manifest.json", "samples.npz", *(file.sha256 for file in wanted.files)}
    run("rollback", "mnist", code=1)
    assert "no previous version" in capsys.readouterr().err
