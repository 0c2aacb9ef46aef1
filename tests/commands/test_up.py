"""`splitplace up` notices credentials that a rotation has replaced."""

import os
from pathlib import Path

from splitplace.commands.up import Renewals
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
