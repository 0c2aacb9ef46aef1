"""`splitplace secure add`, `list`, `remove` and `rotate`, against a Mosquitto with users."""

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from splitplace.commands.secure.control import Control, controlling
from splitplace.commands.secure.enroller import renew_rules, sweep
from splitplace.messages.topics import ENROLLER, GATEWAY, NODE, SENSOR
from splitplace.security.dynamic_security import User, replace_role
from splitplace.security.register import Note
from tests.support.secured import (
    PREFIX,
    Refused,
    Secured,
    Visitor,
    secure,
    secure_in_thread,
    secured_broker,
    splitplace,
    token_for,
    visiting,
)
from tests.support.waiting import block_until

pytestmark = pytest.mark.mosquitto


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("state")) as running:
        yield running


def listed(secured: Secured, name: str) -> list[dict[str, object]]:
    shown = secure(secured, "list", "--json")
    assert shown.code == 0, shown.errors
    return [user for user in json.loads(shown.out)["users"] if user["name"] == name]


def test_several_of_a_kind_are_added_at_once_each_with_credentials_of_its_own(secured: Secured) -> None:
    shown = secure(secured, "add", "sensor", "left", "right")
    assert shown.code == 0, shown.errors
    assert [line.split()[0] for line in shown.out.splitlines()] == ["left", "right"]
    left, right = secured.credentials("left"), secured.credentials("right")
    assert left.password != right.password
    with visiting(secured, "left"), visiting(secured, "right"):
        pass


@pytest.mark.parametrize("names", [("fresh", "fresh"), ("fresh", "half/way"), ("fresh", "gateway")])
def test_where_one_of_several_names_cannot_be_nobody_is_added(
    secured: Secured, names: tuple[str, ...]
) -> None:
    assert secure(secured, "add", "sensor", *names).code == 2
    assert not secured.folder.users.file("fresh").exists()
    assert '"fresh"' not in secure(secured, "list", "--json").out


def test_a_client_id_belongs_to_one_user(secured: Secured) -> None:
    shown = secure(secured, "add", "sensor", "here", "there", "--client-id", "x")
    assert (shown.code, "one user" in shown.errors) == (2, True)


def test_an_added_sensor_speaks_for_itself_and_nobody_else(secured: Secured) -> None:
    assert secure(secured, "add", "sensor", "AA:BB:CC").code == 0
    with visiting(secured, "AA:BB:CC") as sensor:
        assert sensor.may_publish(f"{PREFIX}/task/mnist/AA:BB:CC/7")
        assert sensor.may_subscribe(f"{PREFIX}/answer/AA:BB:CC/+")
        assert not sensor.may_publish(f"{PREFIX}/task/mnist/other/7")
        assert not sensor.may_subscribe(f"{PREFIX}/answer/+/+")


def test_no_secret_is_printed_but_the_token(secured: Secured) -> None:
    shown = [
        secure(secured, "add", "dashboard", "wall"),
        secure(secured, "list"),
        secure(secured, "rotate", "wall"),
    ]
    password = secured.credentials("wall").password
    assert all(each.code == 0 for each in shown)
    assert not any(password in each.out + each.errors for each in shown)


@pytest.mark.parametrize("kind", ["node", "dashboard", "operator", "sensor"])
def test_one_name_belongs_to_one_kind(secured: Secured, kind: str) -> None:
    name = f"only-one-{kind}"
    assert secure(secured, "add", "sensor", name).code == 0
    shown = secure(secured, "add", kind, name)
    assert (shown.code, "is a sensor already" in shown.errors) == (2, True)
    assert [user["kind"] for user in listed(secured, name)] == [SENSOR]


def test_the_name_of_an_invited_node_is_taken(secured: Secured) -> None:
    token_for(secured, "invited")
    shown = secure(secured, "add", "sensor", "invited")
    assert (shown.code, "is a node already" in shown.errors) == (2, True)


@pytest.mark.parametrize("name", ["#", "+", "a/b", "gateway", "operator", "$SYS", "_aggregator", ""])
def test_a_name_that_would_be_somebody_elses_is_refused(secured: Secured, name: str) -> None:
    assert secure(secured, "add", "sensor", name).code == 2
    assert listed(secured, name) == [] or name in {"gateway", "operator"}


def test_a_user_that_is_bound_to_a_client_id_cannot_use_that_of_another(secured: Secured) -> None:
    shown = secure(secured, "add", "sensor", "bound", "--client-id", "bound-1f3a")
    assert shown.code == 0, shown.errors
    with visiting(secured, "bound", client_id="bound-1f3a") as sensor:
        with pytest.raises(Refused), visiting(secured, "bound", client_id="camera"):
            pass
        assert sensor.may_publish(f"{PREFIX}/task/mnist/bound")
    assert secured.settings("bound").bound_client_id == "bound-1f3a"
    assert secure(secured, "rotate", "bound").code == 0
    assert secured.settings("bound").bound_client_id == "bound-1f3a"
    with pytest.raises(Refused), visiting(secured, "bound", client_id="camera"):
        pass
    shown = secure(secured, "add", "node", "several", "--client-id", "x")
    assert (shown.code, "several connections" in shown.errors) == (2, True)


def test_who_is_removed_is_gone_at_once_and_stays_away(secured: Secured) -> None:
    assert secure(secured, "add", "sensor", "thief").code == 0
    with visiting(secured, "thief") as thief:
        assert thief.may_publish(f"{PREFIX}/task/mnist/thief")
        assert secure(secured, "remove", "thief").code == 0
        block_until(lambda: thief.is_gone)
        with pytest.raises(Refused):
            Visitor(secured.facts, thief.username, thief.password, thief.authority).connect()
    assert listed(secured, "thief") == []
    assert not secured.folder.users.file("thief").exists()
    assert secure(secured, "add", "sensor", "thief").code == 0  # the name is free again


def test_a_part_of_the_system_cannot_be_removed(secured: Secured) -> None:
    for name in (GATEWAY, ENROLLER):
        assert secure(secured, "remove", name).code == 2
        assert len(listed(secured, name)) == 1
    assert secure(secured, "remove", "never-seen").code == 2


async def test_what_a_removed_node_has_left_is_cleared(secured: Secured) -> None:
    async with controlling(secured.settings(ENROLLER)) as control:
        await control.add(User(NODE, "attic", "attic", "p" * 43), Note())
    status = f"{PREFIX}/node/attic/status"
    authority = secured.credentials(GATEWAY).authority
    node = Visitor(secured.facts, "attic", "p" * 43, authority, will=(status, b"gone")).connect()
    assert node.may_publish(status, b"online", retain=True)
    with visiting(secured, GATEWAY) as gateway:
        assert gateway.may_subscribe(f"{PREFIX}/node/+/status")
        block_until(lambda: gateway.received.get(status) == b"online")
        assert secure_in_thread(secured, "remove", "attic")
        block_until(lambda: gateway.received.get(status) == b"")
    node.close()
    with visiting(secured, GATEWAY) as later:
        assert later.may_subscribe(f"{PREFIX}/node/+/status")
        assert later.may_publish(f"{PREFIX}/answer/x/y")
        assert status not in later.received


async def test_a_rotated_password_overlaps_with_the_old_one_until_its_time(secured: Secured) -> None:
    assert secure_in_thread(secured, "add", "sensor", "camera")
    old = secured.credentials("camera")
    assert secure_in_thread(secured, "rotate", "camera", "--overlap", "10min")
    new = secured.credentials("camera")
    assert (new.name, new.username) == ("camera", "camera~2")
    for each in (old, new):
        both = Visitor(secured.facts, each.username, each.password, each.authority).connect()
        assert both.may_publish(f"{PREFIX}/task/mnist/camera/1")
        assert not both.may_publish(f"{PREFIX}/task/mnist/camera~2/1")
        both.close()
    async with controlling(secured.settings(ENROLLER)) as control:
        await sweep(control, time.time())
        assert len([each for each in await control.logins() if each.name == "camera"]) == 2
        await sweep(control, time.time() + 601)
        assert [each.login for each in await control.logins() if each.name == "camera"] == ["camera~2"]
    with pytest.raises(Refused):
        Visitor(secured.facts, old.username, old.password, old.authority).connect()
    with visiting(secured, "camera") as camera:
        assert camera.may_publish(f"{PREFIX}/task/mnist/camera/2")


def test_without_overlap_the_old_password_is_void_at_once(secured: Secured) -> None:
    assert secure(secured, "add", "operator", "anna").code == 0
    old = secured.credentials("anna")
    assert secure(secured, "rotate", "anna", "--overlap", "0s").code == 0
    with pytest.raises(Refused):
        Visitor(secured.facts, old.username, old.password, old.authority).connect()


def test_the_enroller_can_rotate_itself(secured: Secured) -> None:
    assert secure(secured, "rotate", ENROLLER, "--overlap", "0s").code == 0
    assert secured.credentials(ENROLLER).username == "enroller~2"
    assert secure(secured, "list").code == 0


def test_a_new_certificate_of_the_broker_costs_no_user_and_no_session(secured: Secured) -> None:
    assert secure(secured, "add", "sensor", "away").code == 0
    own = secured.credentials("away")
    sensor = Visitor(secured.facts, own.username, own.password, own.authority, "session", session_s=600)
    sensor.connect().close()
    before, process = _certificate(secured), secured.broker.pid
    assert secure(secured, "rotate", "broker").code == 0
    secured.broker.restart()
    assert _certificate(secured) != before
    assert secured.broker.pid != process  # not by SIGHUP, after which Mosquitto 2.0 may crash
    back = replace(sensor).connect()
    back.close()
    assert back.has_session


def _certificate(secured: Secured) -> str:
    return ssl.get_server_certificate((secured.facts.hosts[0], secured.facts.port))


async def test_rules_are_renewed_where_a_version_has_others(secured: Secured) -> None:
    async with controlling(secured.settings(ENROLLER)) as control:
        outdated = replace_role(SENSOR, "stale", PREFIX)
        await control.add(User(SENSOR, "stale", "stale", "p" * 43), Note())
        await control.send({**outdated, "acls": outdated["acls"][:1]})
        assert len(await _rules(control, "sensor stale")) == 1
        await renew_rules(control)
        assert await _rules(control, "sensor stale") == len(outdated["acls"]) * [True]


async def _rules(control: Control, role: str) -> list[bool]:
    (found,) = [each for each in await control.roles() if each["rolename"] == role]
    return [acl["allow"] for acl in found["acls"]]


def test_users_are_still_known_after_a_crash_of_the_broker(secured: Secured) -> None:
    assert secure(secured, "add", "sensor", "lasting").code == 0
    secured.broker.kill()
    secured.broker.start()
    with visiting(secured, "lasting") as sensor:
        assert sensor.may_publish(f"{PREFIX}/task/mnist/lasting")


def test_without_a_secured_system_a_command_says_what_to_do(tmp_path: object) -> None:
    shown = splitplace("secure", "list", "--state-dir", str(tmp_path))
    assert (shown.code, "splitplace secure init" in shown.errors) == (2, True)
