"""Figures for dashboards vanish with the process that published them."""

import asyncio
from typing import Any, cast

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.connection import Bus
from splitplace.bus.figures import EXPIRY_S, REPEAT_MS, Figures
from splitplace.bus.service import Service
from splitplace.bus.settings import Settings
from splitplace.messages.metrics import RefusalMetrics
from splitplace.messages.topics import GATEWAY, METRICS_REFUSALS, METRICS_SERVICE, SERVICE_STATUS
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import PATIENCE_S, until

OWN, OLD = METRICS_REFUSALS.at(reason="quota"), METRICS_REFUSALS.at(reason="old")


def refusals(reason: str, count: int = 1) -> RefusalMetrics:
    return RefusalMetrics(reason=reason, count=count)


class RecordingBus:
    """Keeps what is published, and connects to nothing."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes]] = []
        self.expiries: set[int | None] = set()

    def post(self, name: str, payload: bytes, *, properties: Properties | None = None, **_: Any) -> None:
        self.posts.append((name, payload))
        if payload:
            self.expiries.add(getattr(properties, "MessageExpiryInterval", None))

    def take(self) -> list[tuple[str, bytes]]:
        posts, self.posts = self.posts, []
        return posts


async def test_what_does_not_change_is_published_again_before_it_expires() -> None:
    bus, clock = RecordingBus(), [0.0]
    figures = Figures(cast("Bus", bus), lambda: clock[0])
    figures.publish(METRICS_REFUSALS, refusals("quota"))
    published = bus.take()
    assert [name for name, _ in published] == [OWN]
    await figures.repeat()
    assert bus.take() == []
    clock[0] = REPEAT_MS
    await figures.repeat()
    assert bus.take() == published
    assert bus.expiries == {EXPIRY_S}
    assert REPEAT_MS / 1000 < EXPIRY_S / 2, "one lost repetition does no harm"


async def test_a_new_broker_gets_everything_again() -> None:
    bus = RecordingBus()
    figures = Figures(cast("Bus", bus))
    for count in (1, 2):
        figures.publish(METRICS_REFUSALS, refusals("quota", count))
    *_, newest = bus.take()
    await figures.publish_all_again()
    assert bus.take() == [newest]


async def test_what_was_taken_away_is_not_published_again() -> None:
    bus, clock = RecordingBus(), [0.0]
    figures = Figures(cast("Bus", bus), lambda: clock[0])
    figures.publish(METRICS_REFUSALS, refusals("quota"))
    figures.clear(METRICS_REFUSALS, reason="quota")
    assert bus.take()[-1] == (OWN, b"")
    clock[0] = 10 * REPEAT_MS
    await figures.repeat()
    await figures.publish_all_again()
    assert bus.take() == []


async def test_figures_are_gone_when_their_service_has_ended(broker_url: str) -> None:
    settings = Settings(broker=broker_url)
    observer = Observer(broker_url, SERVICE_STATUS, METRICS_SERVICE)
    service = Service(GATEWAY, settings)
    async with observer.bus:
        async with running(service.run()):
            await observer.until(METRICS_SERVICE)
            service.figures.publish(METRICS_REFUSALS, refusals("quota"))
        await observer.until(SERVICE_STATUS, lambda status: not status.online)
        late = Observer(
            broker_url, SERVICE_STATUS, raw=[METRICS_SERVICE, METRICS_REFUSALS], identifier="late"
        )
        async with late.bus:
            await late.until(SERVICE_STATUS)
            await late.publish_raw(OWN, b"end")
            await until(lambda: late.payloads(METRICS_REFUSALS))
            assert [raw.payload for raw in late.payloads(METRICS_REFUSALS)] == [b"end"]
            assert late.payloads(METRICS_SERVICE) == []


async def test_figures_of_a_process_that_was_killed_are_cleared_by_the_next_one(broker_url: str) -> None:
    settings = Settings(broker=broker_url)
    observer = Observer(broker_url, raw=[METRICS_REFUSALS])
    async with observer.bus:
        for name in (OWN, OLD):
            await observer.publish_raw(name, b"{}", retain=True)
        service = Service(GATEWAY, settings)
        service.figures.own(METRICS_REFUSALS)
        async with running(service.run()):
            await service.connected()
            service.figures.publish(METRICS_REFUSALS, refusals("quota", 7))
            await until(lambda: any(not raw.payload for raw in observer.payloads(METRICS_REFUSALS)))
            late = Observer(broker_url, METRICS_REFUSALS, identifier="late")
            async with late.bus:
                assert (await late.until(METRICS_REFUSALS)).count == 7
                assert {message.reason for message in late.heard(METRICS_REFUSALS)} == {"quota"}


@pytest.mark.mosquitto
async def test_the_broker_forgets_figures_that_nobody_publishes_again(mosquitto_url: str) -> None:
    settings = Settings(broker=mosquitto_url)
    async with Bus(settings, "killed") as bus:
        await bus.connected()
        figures = Figures(bus)
        figures.publish(METRICS_REFUSALS, refusals("quota"))
    client = aiomqtt.Client(settings.host, settings.port, protocol=aiomqtt.ProtocolVersion.V5)
    async with client:
        await client.subscribe(f"{settings.prefix}/{OWN}")
        kept = await anext(client.messages)
        properties = kept.properties
        assert properties is not None
        assert properties.MessageExpiryInterval <= EXPIRY_S  # type: ignore[attr-defined]
        expiring = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        expiring.MessageExpiryInterval = 1
        name = f"{settings.prefix}/{OLD}"
        await client.publish(name, b"brief", retain=True, properties=expiring)
    end = "nothing retained"

    async def retained() -> str:
        async with aiomqtt.Client(settings.host, settings.port, protocol=aiomqtt.ProtocolVersion.V5) as late:
            await late.subscribe(name)
            await late.publish(name, end)
            return bytes((await anext(late.messages)).payload).decode()

    async with asyncio.timeout(PATIENCE_S):
        while await retained() != end:
            pass
