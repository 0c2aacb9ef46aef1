"""After a power cut the broker says that all is online; who asks hears that nobody speaks."""

import asyncio
import json

import pytest

from splitplace.bus.connection import Bus
from splitplace.bus.service import Service
from splitplace.bus.settings import Settings
from splitplace.commands.doctor.diagnosis import versions
from splitplace.commands.shared import client
from splitplace.commands.shared.client import connected
from splitplace.commands.shared.system_report import SystemReport, look, report_on
from splitplace.commands.submit import asking
from splitplace.commands.submit.asking import ask
from splitplace.errors import UnreachableError
from splitplace.messages.cluster import NodeStatus, ServiceStatus
from splitplace.messages.metrics import ServiceMetrics
from splitplace.messages.task import TaskRequest
from splitplace.messages.topics import (
    GATEWAY,
    METRICS_SERVICE,
    NODE_INFO,
    NODE_STATUS,
    PLACER,
    SERVICE_STATUS,
    SERVICES,
)
from tests.support.messages import node_info
from tests.support.running import running

BOOT = "0123456789abcdef"


async def leave_behind(settings: Settings) -> None:
    """What a system leaves on a broker that lost its power too."""
    async with Bus(settings, "leaver") as bus:
        for name in SERVICES:
            status = ServiceStatus(service=name, boot=BOOT, online=True, software="1")
            await bus.publish(SERVICE_STATUS, status)
            metrics = ServiceMetrics(service=name, received=1, rejected=0, overflowed=0, reconnects=0)
            payload = metrics.model_dump_json().encode()
            await bus.publish_raw(METRICS_SERVICE.at(service=name), payload, retain=True)
        await bus.publish(NODE_STATUS, NodeStatus(node="n1", boot=BOOT, online=True))


@pytest.fixture
def nobody_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody speaks, the time to wait for it does not matter."""
    monkeypatch.setattr(client, "SPEAKS_WITHIN_S", 0.5)
    monkeypatch.setattr(asking, "SPEAKS_WITHIN_S", 0.5)


async def report(settings: Settings) -> SystemReport:
    async with connected(settings, "test") as connection:
        return report_on(await look(connection, settings))


@pytest.mark.usefixtures("nobody_speaks")
async def test_a_system_that_is_gone_is_offline_although_its_status_is_retained(mosquitto_url: str) -> None:
    settings = Settings(broker=mosquitto_url)
    await leave_behind(settings)
    seen = await report(settings)
    assert seen.missing == SERVICES
    assert [(node.name, node.online) for node in seen.nodes] == [("n1", False)]


async def test_a_service_that_speaks_among_leftovers_is_online(mosquitto_url: str) -> None:
    settings = Settings(broker=mosquitto_url)
    await leave_behind(settings)
    service = Service(GATEWAY, settings)
    async with running(service.run()):
        await service.connected()
        assert set((await report(settings)).missing) == set(SERVICES) - {GATEWAY}


@pytest.mark.usefixtures("nobody_speaks")
async def test_who_submits_to_a_gateway_that_is_gone_is_told_so_before_the_deadline(
    mosquitto_url: str,
) -> None:
    settings = Settings(broker=mosquitto_url)
    await leave_behind(settings)
    request = TaskRequest(images=(b"x",), deadline_ms=60_000)
    async with asyncio.timeout(20):
        with pytest.raises(UnreachableError, match="no sign of life"):
            await ask(settings, "tiny", request)


@pytest.mark.usefixtures("nobody_speaks")
@pytest.mark.parametrize("version", [1, 3])
async def test_parts_that_are_not_understood_are_named_with_their_version(
    version: int, mosquitto_url: str
) -> None:
    settings = Settings(broker=mosquitto_url)
    other = {"version": version, "boot": BOOT, "online": True, "software": "splitplace 9.1.0\x1b[2J"}
    async with Bus(settings, "leaver") as bus:
        for name, fields in (
            (SERVICE_STATUS.at(service=GATEWAY), {**other, "service": GATEWAY}),
            (NODE_STATUS.at(node="kit"), {"version": version, "node": "kit", "online": True}),
            (NODE_INFO.at(node="kit"), {**other, "node": "kit"}),
            (NODE_STATUS.at(node="odd"), {"version": 2, "node": "odd"}),
            (SERVICE_STATUS.at(service=PLACER), {**other, "version": 2, "service": PLACER, "mood": "new"}),
        ):
            await bus.publish_raw(name, json.dumps(fields).encode(), retain=True)
    seen = await report(settings)
    named = {stranger.name: stranger for stranger in seen.strangers}
    assert named.keys() == {GATEWAY, "node kit", "node odd"}, "a field more is no reason"
    for name in (GATEWAY, "node kit"):
        assert named[name].software == "splitplace 9.1.0[2J"
        assert named[name].reason == f"it speaks version {version} of the protocol, this is 2"
    assert (named["node odd"].software, "boot" in named["node odd"].reason) == (None, True)
    check = versions("0.2", seen)
    assert check.level == "fail"
    assert "node kit (splitplace 9.1.0[2J) is not understood" in check.finding


@pytest.mark.usefixtures("nobody_speaks")
async def test_a_node_whose_info_does_not_tell_what_it_holds_is_named(mosquitto_url: str) -> None:
    """Nodes told that in their heartbeats once."""
    settings = Settings(broker=mosquitto_url)
    info = node_info("old").model_dump(mode="json", exclude={"loaded", "stored", "timings"})
    async with Bus(settings, "leaver") as bus:
        await bus.publish_raw(NODE_INFO.at(node="old"), json.dumps(info).encode(), retain=True)
    (named,) = (await report(settings)).strangers
    assert named.name == "node old"
    assert "loaded" in named.reason
