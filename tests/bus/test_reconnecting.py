"""A bus whose connection fails or breaks comes back, soon and without a crowd."""

import asyncio
import logging
import os
import signal
import socket
import time

import aiomqtt
import pytest
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from splitplace.bus import connection, reconnect
from splitplace.bus.client import BrokerClient
from splitplace.bus.connection import Bus, Received
from splitplace.bus.reconnect import FIRST_PATIENCE_S, HELD_S, LAST_PATIENCE_S, LAST_PAUSE_S, Reconnect
from splitplace.bus.service import Service
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker
from splitplace.messages.cluster import NodeStatus
from splitplace.messages.topics import NODE_STATUS
from tests.support.odd_brokers import odd_broker, relay_to
from tests.support.running import running
from tests.support.waiting import pass_time, until

BOOT = "0123456789abcdef"


def status(node: str) -> NodeStatus:
    return NodeStatus(node=node, boot=BOOT, online=True)


async def test_an_attempt_ends_at_once_when_the_other_side_closes() -> None:
    async with odd_broker("closes") as server, Bus(Settings(broker=server.url), "early"):
        await until(lambda: len(server.taken_s) == 4, 10)


async def test_a_broker_that_dies_while_subscriptions_are_made_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "_FORGOTTEN_AFTER_S", 3600.0)
    async with odd_broker("closes_when_subscribed") as server:
        bus = Bus(Settings(broker=server.url), "subscriber")
        bus.subscribe(NODE_STATUS, ignored)
        async with bus:
            await until(lambda: len(server.taken_s) == 4, 10)


async def ignored(_: Received[NodeStatus]) -> None:
    pass


async def test_a_bus_is_back_soon_after_the_broker_behind_a_proxy_is(broker: Broker) -> None:
    async with relay_to(broker.url) as relay, Bus(Settings(broker=relay.url), "behind") as bus:
        await bus.connected()
        await asyncio.to_thread(broker.kill)
        await until(lambda: not bus.is_connected)
        await asyncio.to_thread(broker.start)
        await until(lambda: bus.is_connected, 6)


async def test_an_attempt_without_an_answer_ends_after_its_patience_and_closes_its_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PATIENCE_S", 0.2)
    async with odd_broker("is_silent") as server, Bus(Settings(broker=server.url), "silent"):
        await until(lambda: len(server.taken_s) == 3 and len(server.lost_s) >= 2, 10)
    assert server.pauses_s[0] >= 0.2
    assert server.pauses_s[1] >= 0.4


async def test_the_end_of_a_socket_after_its_attempt_was_given_up_is_no_error() -> None:
    client = BrokerClient("127.0.0.1", protocol=aiomqtt.ProtocolVersion.V5)
    client._connected.cancel()
    code = ReasonCode(PacketTypes.DISCONNECT)
    client._on_disconnect(client._client, None, DisconnectFlags(is_disconnect_packet_from_server=False), code)


def test_patience_doubles_with_each_silent_attempt_and_begins_anew_after_a_connection() -> None:
    policy = Reconnect()
    patience = []
    for _ in range(6):
        patience.append(policy.patience_s)
        policy.failed(after_s=policy.patience_s)
    assert patience == [3, 6, 12, 24, 30, 30]
    assert (patience[0], patience[-1]) == (FIRST_PATIENCE_S, LAST_PATIENCE_S)
    policy.failed(after_s=0.1)
    assert policy.patience_s == LAST_PATIENCE_S, "a refusal says nothing about the speed of the link"
    policy.broke(held_s=HELD_S)
    assert policy.patience_s == FIRST_PATIENCE_S


def test_pauses_grow_until_a_connection_has_held() -> None:
    policy = Reconnect()
    pauses = [policy.broke(held_s=0.1) for _ in range(12)]
    assert pauses[0] < 0.1
    assert all(LAST_PAUSE_S / 2 <= pause <= LAST_PAUSE_S * 1.5 for pause in pauses[-3:])
    assert len(set(pauses[-3:])) == 3, "clients of one broker must not come back together"
    assert policy.broke(held_s=HELD_S) < 0.1


async def test_a_connection_that_ends_as_soon_as_it_begins_is_tried_ever_more_seldom() -> None:
    async with odd_broker("closes_after_accepting") as server, Bus(Settings(broker=server.url), "brief"):
        await until(lambda: len(server.taken_s) == 6, 20)
    assert server.pauses_s[-1] > 0.4, "0.05 s for ever before"


@pytest.mark.parametrize("kind", ["closes", "closes_after_accepting"])
async def test_a_part_whose_connections_keep_ending_says_so_once_for_each_reason(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with odd_broker(kind) as server:
        service = Service("placer", Settings(broker=server.url))
        service.connection("bulk")
        async with running(service.run()):
            await until(lambda: len(server.taken_s) >= 10, 30)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == len(set(warnings))
    assert any("trying again" in line for line in warnings)
    assert len(warnings) <= 4, "one line each for the ways in which such a connection can end"


async def test_a_publication_that_times_out_just_when_the_connection_breaks_ends_nothing(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reschedule` of a timeout that was expiring ended the connection's task; the process lived on."""
    monkeypatch.setattr(connection, "_FORGOTTEN_AFTER_S", 0.3)
    assert broker.pid is not None
    bus = Bus(Settings(broker=broker.url), "sender")
    async with bus:
        await bus.connected()
        client = bus._client
        assert client is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            publications = [asyncio.create_task(bus.publish(NODE_STATUS, status(f"n{n}"))) for n in range(9)]
            await asyncio.sleep(0)
            broken = client._client.socket()
            assert isinstance(broken, socket.socket)
            broken.shutdown(socket.SHUT_RDWR)
            pass_time(0.4)  # both become due in one turn of the event loop
            await until(lambda: not bus.is_connected)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        began = time.monotonic()
        async with asyncio.timeout(20):
            await asyncio.gather(*publications)
        assert time.monotonic() - began < 15
