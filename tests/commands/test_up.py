"""`splitplace up` notices new credentials, and refuses a state folder that another one uses."""

import os
from pathlib import Path

import pytest

from splitplace.commands.up import Renewals, command
from splitplace.errors import SplitPlaceError
from splitplace.storage.exclusive import exclusive
from splitplace.storage.paths import Paths
from splitplace.storage.secured import UsersFolder


def write(file: Path, changed_ns: int) -> None:
    file.write_text("x", encoding="utf-8")
    os.utime(file, ns=(changed_ns, changed_ns))


def test_new_credentials_are_due_once(tmp_path: Path) -> None:
    users = UsersFolder(tmp_path)
    for name in ("gateway", "placer"):
        write(users.file(name), 1)
    renewals = Renewals(tmp_path, ["gateway", "placer", "enroller"])
    assert renewals.due() == []
    write(users.file("gateway"), 2)
    assert renewals.due() == ["gateway"]
    assert renewals.due() == []
    users.file("placer").unlink()  # nobody can start with what is not there
    write(users.file("enroller"), 3)
    assert renewals.due() == ["enroller"]


def test_without_users_nothing_is_ever_due() -> None:
    assert Renewals(None, ["gateway"]).due() == []


def test_a_second_one_with_the_same_state_folder_ends_before_it_starts_anything(tmp_path: Path) -> None:
    with (
        exclusive(Paths(tmp_path, tmp_path).up_lock),
        pytest.raises(SplitPlaceError, match=r"another splitplace up uses .*--state-dir of its own"),
    ):
        command(broker="mqtt://127.0.0.1:1", state_dir=tmp_path)
    assert not (tmp_path / "log").exists()
