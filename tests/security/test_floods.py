"""A sensor and a stolen node that waste what others need: the honest sensor is answered meanwhile."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator

import msgpack
import pytest

from splitplace.messages.limits import MAX_TASK_BYTES
from splitplace.messages.topics import GATEWAY
from tests.support.secured import PREFIX, Visitor, visiting
from tests.support.secured_system import SecuredSystem, answers_rightly, camera_of, secured_system
from tests.support.tiny_application import tiny_images
from tests.support.waiting import block_until, until
from tests.support.whole_system import LONG_DEADLINE_MS, Sensor

pytestmark = [pytest.mark.mosquitto, pytest.mark.system]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredSystem]:
    with secured_system(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture
async def camera(system: SecuredSystem) -> AsyncIterator[Sensor]:
    """The honest sensor. At the end its tasks are answered rightly, whatever the attack was."""
    async with camera_of(system) as sensor:
        yield sensor
        ends = await answers_rightly(sensor)
        assert ends == {"answered": len(sensor.sent)}, system.logs()


def task(seed: int, padding: int = 0) -> bytes:
    images, _ = tiny_images(1, seed=seed)
    body = {"inputs": images.tobytes(), "deadline_ms": LONG_DEADLINE_MS}
    if padding:
        body["note"] = bytes(padding)
    return bytes(msgpack.packb(body))


async def test_many_retained_tasks_leave_nothing_at_the_broker(system: SecuredSystem, camera: Sensor) -> None:
    names = [f"{secrets.token_hex(4)}-{number}" for number in range(100)]

    def kept() -> set[str]:
        with visiting(system.secured, GATEWAY) as later:
            assert later.may_subscribe(f"{PREFIX}/task/tiny/thief/+")
            assert later.may_publish(f"{PREFIX}/answer/nobody/x")  # answered after what is retained
            return {topic for topic, payload in later.received.items() if payload}

    with visiting(system.secured, "thief") as thief:
        for number, name in enumerate(names):
            assert thief.may_publish(f"{PREFIX}/task/tiny/thief/{name}", task(number), retain=True)
        await answers_rightly(camera)
    await asyncio.to_thread(block_until, lambda: not kept())


async def test_large_tasks_of_one_sensor_are_refused_aloud_before_they_crowd_out_others(
    system: SecuredSystem, camera: Sensor
) -> None:
    name = secrets.token_hex(4)
    large = task(1, padding=MAX_TASK_BYTES - 100_000)
    with visiting(system.secured, "thief") as thief:
        assert thief.may_subscribe(f"{PREFIX}/answer/thief/+")
        for number in range(12):
            assert thief.may_publish(f"{PREFIX}/task/tiny/thief/{name}-{number}", large)
        await answers_rightly(camera, tasks=3)

        def answers() -> list[bytes]:  # not those of what the thief has sent before
            return [each for topic, each in dict(thief.received).items() if f"/{name}-" in topic]

        await until(lambda: len(answers()) == 12)
        statuses = {json.loads(each)["status"] for each in answers()}
    assert statuses <= {"answered", "refused", "invalid"}


async def test_a_packet_that_is_too_large_costs_only_its_sender_the_connection(
    system: SecuredSystem, camera: Sensor
) -> None:
    own = system.secured.credentials("thief")
    for _ in range(3):
        thief = Visitor(system.secured.facts, own.username, own.password, own.authority).connect()
        thief._client.publish(f"{PREFIX}/task/tiny/thief/x", bytes(2 * MAX_TASK_BYTES), qos=1)
        await until(lambda visitor=thief: visitor.is_gone)  # type: ignore[misc]
        thief.close()
        await answers_rightly(camera)


async def test_many_connections_of_one_user_keep_nobody_out(system: SecuredSystem, camera: Sensor) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(visiting(system.secured, "thief"))
        await answers_rightly(camera, tasks=2)
        async with camera_of(system) as later:
            assert later.bus.is_connected


async def test_noise_on_every_topic_that_a_stolen_node_may_write_harms_nobody(
    system: SecuredSystem, camera: Sensor
) -> None:
    noise = (
        b"",
        b"\x00",
        b"{}",
        b"[]",
        b"null",
        secrets.token_bytes(5000),
        b'{"node": "n1"}',
        b"\xff" * 70_000,
    )
    with visiting(system.secured, "n2") as stolen:
        for payload in noise:
            for topic in ("tensor/n1/n2", "tensor/_aggregator/n2", "node/n2/failure", "node/n2/vitals"):
                stolen.may_publish(f"{PREFIX}/{topic}", payload)
        await answers_rightly(camera, tasks=3)
