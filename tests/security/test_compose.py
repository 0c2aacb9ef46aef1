"""`compose.secure.yaml` beside `compose.yaml`: who gets which credentials; nothing secret is in it."""

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from splitplace.commands.secure import init
from splitplace.messages.topics import ENROLLER, SERVICES
from splitplace.storage.credentials import Credentials
from tests.support.secured import splitplace

ROOT = Path(__file__).parents[2]
NODES = ("node-1", "node-2", "node-3")
PARTS = {*SERVICES, ENROLLER, *NODES}


class _Loader(yaml.SafeLoader):
    """Reads the tag with which Compose replaces a list in place of adding to it."""


def _list(loader: yaml.SafeLoader, node: Any) -> list[Any]:
    return list(loader.construct_sequence(node))


_Loader.add_constructor("!override", _list)


def load(name: str) -> dict[str, Any]:
    text = (ROOT / name).read_text(encoding="utf-8")
    whole: dict[str, Any] = yaml.load(text, _Loader)
    return whole


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return load("compose.yaml")


@pytest.fixture(scope="module")
def secure() -> dict[str, Any]:
    return load("compose.secure.yaml")


@pytest.fixture(scope="module")
def hand_out() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hand_out", ROOT / "deploy" / "hand_out.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Sources of a service's volumes by their target."""
    return {target: source for source, target, *_ in (each.rsplit(":", 2) for each in _pairs(service))}


def _pairs(service: dict[str, Any]) -> list[str]:
    return [each if each.endswith(":ro") else f"{each}:rw" for each in service.get("volumes", ())]


def test_every_part_of_the_open_system_is_secured(plain: dict[str, Any], secure: dict[str, Any]) -> None:
    assert {*plain["services"]} | {"hand-out", ENROLLER} == {*secure["services"]}
    for name in PARTS:
        part = secure["services"][name]
        assert part["environment"] == {
            "SPLITPLACE_BROKER": "mqtts://broker:8883",
            "SPLITPLACE_CREDENTIALS": "/run/splitplace/credentials.toml",
        }
        assert part["depends_on"]["hand-out"] == {"condition": "service_completed_successfully"}


def test_each_part_gets_its_own_credentials_and_nobody_elses(secure: dict[str, Any]) -> None:
    handed = mounts(secure["services"]["hand-out"])
    assert {target.removeprefix("/out/") for target in handed if target.startswith("/out/")} == {
        "broker",
        *PARTS,
    }
    for name in PARTS:
        own = f"{name}-credentials"
        assert mounts(secure["services"][name]) == {"/run/splitplace": own}
        assert handed[f"/out/{name}"] == own
        assert own in secure["volumes"]
    assert mounts(secure["services"]["broker"])["/mosquitto/secure"] == handed["/out/broker"]


def test_the_broker_listens_with_tls_only_and_knows_nobody_else(secure: dict[str, Any]) -> None:
    assert secure["services"]["broker"]["ports"] == ["8883:8883"]
    text = (ROOT / "mosquitto" / "secure.conf").read_text("utf-8")
    assert re.findall(r"^listener (.*)$", text, re.MULTILINE) == ["8883"]
    assert re.findall(r"^allow_anonymous (.*)$", text, re.MULTILINE) == ["false"]
    target = mounts(secure["services"]["broker"])
    for path in re.findall(r"/mosquitto/\w+/", text):
        assert path.rstrip("/") in target


def test_limits_of_the_broker_are_those_without_users() -> None:
    keys = ("max_", "persistence", "autosave", "set_tcp")
    open_one, secured = (
        {
            line
            for line in (ROOT / "mosquitto" / name).read_text("utf-8").splitlines()
            if line.startswith(keys)
        }
        for name in ("mosquitto.conf", "secure.conf")
    )
    assert open_one == secured


def test_containers_have_no_more_rights_than_they_need(secure: dict[str, Any]) -> None:
    for name in ("hand-out", ENROLLER):
        service = secure["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert secure["services"]["hand-out"]["network_mode"] == "none"
    assert "user" not in secure["services"][ENROLLER]


def test_nothing_secret_can_get_into_the_repository() -> None:
    for name in ("compose.secure.yaml", "mosquitto/secure.conf", "deploy/hand_out.py"):
        text = (ROOT / name).read_text("utf-8").lower()
        assert not re.search(r"password\s*[:=]|begin (certificate|.*private key)", text)


@pytest.mark.mosquitto
def test_what_init_makes_is_handed_out_whole(
    tmp_path: Path, hand_out: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: dict[str, int] = {}
    monkeypatch.setattr(os, "chown", lambda path, user, _group: owners.update({str(path): user}))
    nodes = [word for node in NODES for word in ("--node", node)]
    shown = splitplace(
        "secure", "init", "--host", "hub.example", "--host", "broker", *nodes, "--state-dir", str(tmp_path)
    )
    assert shown.code == 0, shown.errors
    out = tmp_path / "out"
    for name in ("broker", *PARTS):
        (out / name).mkdir(parents=True)
    secure_folder = tmp_path / "secure"
    assert hand_out.hand_out(secure_folder, out) == []
    for name in PARTS:
        file = out / name / "credentials.toml"
        assert [each.name for each in (out / name).iterdir()] == ["credentials.toml"]
        assert Credentials.load(file).name == name
        assert file.stat().st_mode & 0o777 == 0o600
    users = out / "broker" / "dynamic-security.json"
    users.write_text("kept by the broker")
    assert hand_out.hand_out(secure_folder, out) == []
    assert users.read_text() == "kept by the broker"
    assert sorted(each.name for each in (out / "broker").iterdir()) == [
        "broker.key",
        "broker.pem",
        "dynamic-security.json",
    ]
    (out / "attic").mkdir()
    assert hand_out.hand_out(secure_folder, out) == ["attic"]


@pytest.mark.mosquitto
def test_a_node_that_init_is_told_has_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = splitplace("secure", "init", "--node", "#", "--state-dir", str(tmp_path))
    assert (shown.code, (tmp_path / "secure").exists()) == (2, False)
    monkeypatch.setattr(init, "mosquitto_path", lambda: "mosquitto")
    shown = splitplace("secure", "init", "--node", "node-1", "--state-dir", str(tmp_path))
    assert shown.code == 0
    assert '"node node-1"' in (tmp_path / "secure" / "broker" / "dynamic-security.json").read_text()
    assert Credentials.load(tmp_path / "secure" / "users" / "node-1.toml").kind == "node"
