"""Attacks on a whole secured system, as sensor, node, dashboard and nobody: everybody speaks only for "
"itself."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import msgpack
import pytest

from splitplace.messages.base import Message
from splitplace.messages.topics import ENROLLER, GATEWAY, METRICS_SERVICE, OPERATOR, Topic, all_topics
from tests.support.secured import PREFIX, Refused, Visitor, secure_in_thread, visiting
from tests.support.secured_system import SecuredSystem, answers_rightly, camera_of, secured_system
from tests.support.tiny_application import tiny_images
from tests.support.waiting import block_until, until
from tests.support.whole_system import LONG_DEADLINE_MS, Sensor

pytestmark = [pytest.mark.mosquitto, pytest.mark.system]

ATTACKERS = ("thief", "n2", "wall")
"""A sensor, a stolen node, a dashboard."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredSystem]:
    with secured_system(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="module")
def attackers(system: SecuredSystem) -> Iterator[dict[str, Visitor]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(visiting(system.secured, name)) for name in ATTACKERS}


@pytest.fixture
async def camera(system: SecuredSystem) -> AsyncIterator[Sensor]:
    """The honest sensor. At the end its tasks are answered rightly, whatever the attack was."""
    async with camera_of(system) as sensor:
        yield sensor
        ends = await answers_rightly(sensor)
        assert ends == {"answered": len(sensor.sent)}, system.logs()


def as_others_use_it(topic: Topic[Message]) -> str:
    """A topic as its rightful publishers use it."""
    levels = {"service": GATEWAY, "sender": "n1", "receiver": "n1", "node": "n1", "client": "camera"}
    return f"{PREFIX}/{topic.at(**(dict.fromkeys(topic.parameters, 'x') | levels))}"


@pytest.mark.parametrize("topic", [pytest.param(topic, id=topic.pattern) for topic in all_topics()])
def test_nobody_speaks_for_another(topic: Topic[Message], attackers: dict[str, Visitor]) -> None:
    let = {name for name, each in attackers.items() if each.may_publish(as_others_use_it(topic), retain=True)}
    asks_for_itself = topic.pattern == "fragment/{fragment}/request"
    assert let == ({"n2"} if asks_for_itself else set())


@pytest.mark.parametrize(
    "topic",
    [
        *("#", "+/#", f"{PREFIX}/#", f"{PREFIX}/+/+/+", f"$share/g/{PREFIX}/#", "$SYS/#", "$CONTROL/#"),
        *(f"{PREFIX}/answer/#", f"{PREFIX}/answer/camera/+", f"{PREFIX}/task/#", f"{PREFIX}/join/#"),
        *(f"{PREFIX}/tensor/#", f"{PREFIX}/tensor/n1/+", f"{PREFIX}/tensor/_aggregator/+"),
        *(f"$share/g/{PREFIX}/answer/camera/+", f"$share/g/{PREFIX}/task/#", f"{PREFIX}/+/camera/+"),
        "$CONTROL/dynamic-security/v1/response",
    ],
)
def test_nobody_hears_what_is_for_others(topic: str, attackers: dict[str, Visitor]) -> None:
    assert [name for name, each in attackers.items() if each.may_subscribe(topic)] == []


def test_only_the_enroller_makes_users(system: SecuredSystem, attackers: dict[str, Visitor]) -> None:
    command = {"command": "createClient", "username": "backdoor", "password": "x", "roles": []}
    payload = json.dumps({"commands": [command]}).encode()
    with visiting(system.secured, OPERATOR) as operator, visiting(system.secured, GATEWAY) as gateway:
        for each in (*attackers.values(), operator, gateway):
            assert not each.may_publish("$CONTROL/dynamic-security/v1", payload)
    authority = system.secured.credentials(ENROLLER).authority
    with pytest.raises(Refused):
        Visitor(system.secured.facts, "backdoor", "x", authority).connect()


async def test_a_last_will_speaks_for_nobody_else(system: SecuredSystem, camera: Sensor) -> None:
    own = system.secured.credentials("thief")
    offline = json.dumps({"service": GATEWAY, "boot": "0" * 16, "online": False, "software": "x"}).encode()
    with visiting(system.secured, OPERATOR) as operator:
        assert operator.may_subscribe(f"{PREFIX}/service/#")
        will = (f"{PREFIX}/service/gateway/status", offline)
        for _ in range(3):
            thief = Visitor(system.secured.facts, own.username, own.password, own.authority, will=will)
            thief.connect().break_off()
            thief.close()
        await answers_rightly(camera)
        assert json.loads(operator.received[f"{PREFIX}/service/gateway/status"])["online"]


@pytest.mark.parametrize(
    "client_id",
    ["splitplace-gateway", "splitplace-gateway:intake", "splitplace-node-n1", "splitplace-node-n1:tensors"],
)
async def test_a_client_id_that_can_be_guessed_throws_nobody_out(
    system: SecuredSystem, camera: Sensor, client_id: str
) -> None:
    with visiting(system.secured, OPERATOR) as operator:
        topic = f"{PREFIX}/{METRICS_SERVICE.at(service=GATEWAY)}"
        assert operator.may_subscribe(topic)
        await until(lambda: topic in operator.received)
        before = json.loads(operator.received.pop(topic))["reconnects"]
        for _ in range(5):
            with visiting(system.secured, "thief", client_id=client_id):
                pass
        await answers_rightly(camera)
        await until(lambda: topic in operator.received)
        operator.received.pop(topic)
        await until(lambda: topic in operator.received)  # two periods later
        assert json.loads(operator.received[topic])["reconnects"] == before


def task(seed: int) -> bytes:
    images, _ = tiny_images(1, seed=seed)
    return bytes(msgpack.packb({"inputs": images.tobytes(), "deadline_ms": LONG_DEADLINE_MS}))


def answer_of(thief: Visitor, name: str) -> dict[str, Any]:
    topic = f"{PREFIX}/answer/thief/{name}"
    block_until(lambda: topic in thief.received)
    return dict(json.loads(thief.received[topic]))


@pytest.mark.parametrize(
    "response",
    [
        f"{PREFIX}/answer/camera/stolen",
        f"{PREFIX}/job/camera.t0/finished",
        f"{PREFIX}/service/gateway/status",
        f"{PREFIX}/node/n1/cancel",
        "$CONTROL/dynamic-security/v1",
        "home/light/set",
    ],
)
async def test_an_answer_goes_to_nobody_else_and_the_sender_hears_why(
    system: SecuredSystem, camera: Sensor, response: str
) -> None:
    name = secrets.token_hex(4)
    with visiting(system.secured, "thief") as thief:
        assert thief.may_subscribe(f"{PREFIX}/answer/thief/+")
        assert thief.may_publish(f"{PREFIX}/task/tiny/thief/{name}", task(1), response=response)
        answer = answer_of(thief, name)
    assert answer["status"] == "answered"
    assert any("response topic" in warning for warning in answer["warnings"])
    await answers_rightly(camera)
    assert "stolen" not in camera.answers


@pytest.mark.parametrize("place", ["body", "property", "both"])
async def test_a_task_belongs_to_who_the_topic_says_whatever_it_claims(
    system: SecuredSystem, camera: Sensor, place: str
) -> None:
    name = secrets.token_hex(4)
    images, _ = tiny_images(1, seed=4)
    claims = {"client": "camera", "task": name} if place != "property" else {}
    body = {"inputs": images.tobytes(), "deadline_ms": LONG_DEADLINE_MS, **claims}
    properties = {"client": "camera", "task": name} if place != "body" else {}
    with visiting(system.secured, "thief") as thief:
        assert thief.may_subscribe(f"{PREFIX}/answer/thief/+")
        payload = bytes(msgpack.packb(body))
        assert thief.may_publish(f"{PREFIX}/task/tiny/thief", payload, user=properties)
        await until(lambda: thief.received)
        (answer,) = map(json.loads, thief.received.values())
    assert answer["client"] == "thief"
    await answers_rightly(camera)
    assert name not in camera.answers


async def test_a_retained_task_does_not_stay_at_the_broker(system: SecuredSystem, camera: Sensor) -> None:
    topic = f"{PREFIX}/task/tiny/thief/{secrets.token_hex(4)}"
    with visiting(system.secured, "thief") as thief:
        assert thief.may_subscribe(f"{PREFIX}/answer/thief/+")
        assert thief.may_publish(topic, task(2), retain=True)
        answer = answer_of(thief, topic.rpartition("/")[2])
    assert (answer["status"], "retain flag" in answer["warnings"][0]) == ("answered", True)

    def is_kept() -> bool:
        with visiting(system.secured, GATEWAY) as later:
            assert later.may_subscribe(topic)
            assert later.may_publish(f"{PREFIX}/answer/nobody/x")  # answered after what is retained
            return topic in later.received

    block_until(lambda: not is_kept())
    await answers_rightly(camera)


async def test_a_flood_of_one_sensor_does_not_drown_the_tasks_of_another(
    system: SecuredSystem, camera: Sensor
) -> None:
    with visiting(system.secured, "thief") as thief:
        flood = secrets.token_hex(4)
        for number in range(300):
            assert thief.may_publish(f"{PREFIX}/task/tiny/thief/{flood}-{number}", task(number))
        assert await answers_rightly(camera, tasks=5) == {"answered": 5}


@pytest.mark.parametrize(
    "levels",
    [
        "tiny/thief/..",
        "tiny/thief/../../etc/passwd",
        "../thief/x",
        "tiny/thief/%2e%2e",
        "tiny/thief/a/b/c",
        "~/thief/'",
    ],
)
async def test_names_that_look_like_paths_are_only_names(
    system: SecuredSystem, camera: Sensor, levels: str
) -> None:
    with visiting(system.secured, "thief") as thief:
        assert thief.may_subscribe(f"{PREFIX}/answer/thief/+/#")
        assert thief.may_publish(f"{PREFIX}/task/{levels}", task(3))
        answer = await asyncio.to_thread(answer_of, thief, levels.partition("/thief/")[2])
    assert answer["status"] in {"answered", "invalid", "refused"}
    await answers_rightly(camera)


async def test_a_stolen_node_cannot_forge_a_result_of_others(system: SecuredSystem, camera: Sensor) -> None:
    """What it may write are tensors of its own, and the aggregator takes only those of the placement."""
    with visiting(system.secured, "n2") as stolen:
        assert not stolen.may_publish(f"{PREFIX}/job/camera.t0/result", b"{}")
        assert not stolen.may_publish(f"{PREFIX}/tensor/_aggregator/n1", b"x")
        for receiver in ("_aggregator", "n1"):
            assert stolen.may_publish(f"{PREFIX}/tensor/{receiver}/n2", secrets.token_bytes(1000))
            assert stolen.may_publish(f"{PREFIX}/tensor/{receiver}/n2", b"")
        await answers_rightly(camera, tasks=3)


async def test_guessing_passwords_disturbs_nobody(system: SecuredSystem, camera: Sensor) -> None:
    authority = system.secured.credentials(GATEWAY).authority
    for number in range(50):
        with pytest.raises(Refused):
            Visitor(system.secured.facts, GATEWAY, f"guess-{number}", authority).connect()
    await answers_rightly(camera)


async def test_a_thief_that_is_removed_is_out_in_the_middle_of_it(
    system: SecuredSystem, camera: Sensor
) -> None:
    assert secure_in_thread(system.secured, "add", "sensor", "burglar")
    with visiting(system.secured, "burglar") as burglar:
        assert secure_in_thread(system.secured, "remove", "burglar")
        await until(lambda: burglar.is_gone)
    await answers_rightly(camera)


def test_nothing_secret_is_logged(system: SecuredSystem) -> None:
    users = system.secured.folder.users
    passwords = [system.secured.credentials(name).password for name in users.names()]
    logs = system.logs() + system.secured.broker.log_file.read_text()
    assert "is online" in logs
    assert [password for password in passwords if password in logs] == []


def test_nothing_secret_stands_on_a_command_line(system: SecuredSystem) -> None:
    users = system.secured.folder.users
    passwords = [system.secured.credentials(name).password for name in users.names()]
    lines = [" ".join(child.command) for child in system.processes.children.values()]
    assert [line for line in lines if any(password in line for password in passwords)] == []


def test_the_access_rules_refuse_nothing_that_a_part_wants(system: SecuredSystem) -> None:
    attacked = "home/light/set"  # a response topic of the thief
    lines = [line for line in system.logs().splitlines() if attacked not in line]
    assert [line for line in lines if "the broker refuses" in line] == []
