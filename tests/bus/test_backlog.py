"""What waits at the broker for a part that is away costs the others nothing."""

import logging
import socket
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.commands.processes.broker import Broker
from splitplace.messages.limits import MAX_TASK_BYTES, MEBIBYTE
from tests.support.brokers import running_broker
from tests.support.waiting import every

log = logging.getLogger(__name__)

BACKLOG_BYTES = 200 * MEBIBYTE
ROUND_TRIPS = 150
PAUSE_S = 0.02
"""Spreads the round trips over some seconds: a broker that saves each second does so among them."""
LEAST_FLOOR_S = 0.002
MOST_RATIO = 5.0
"""Bound of the mean beside the backlog, as a multiple of the mean alone."""


def client(broker: Broker, **options: Any) -> aiomqtt.Client:
    return aiomqtt.Client(
        broker.host,
        broker.port,
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=60.0,
        socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
        **options,
    )


def written_bytes(broker: Broker) -> int:
    """What the broker has written since its start, to files and connections."""
    lines = Path(f"/proc/{broker.pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


async def round_trips_s(broker: Broker) -> Sequence[float]:
    took_s = []
    async with client(broker) as sensor:
        await sensor.subscribe("echo", qos=0)
        messages = aiter(sensor.messages)
        async for _ in every(PAUSE_S):
            began_s = time.perf_counter()
            await sensor.publish("echo", b"x" * 1000, qos=0)
            await anext(messages)
            took_s.append(time.perf_counter() - began_s)
            if len(took_s) == ROUND_TRIPS:
                break
    return took_s


async def leave_a_backlog(broker: Broker) -> None:
    """Let 200 MB of tasks wait for a gateway that is away."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 300
    async with client(broker, identifier="gateway", clean_start=False, properties=properties) as gateway:
        await gateway.subscribe("task/#", qos=1)
    async with client(broker, max_queued_outgoing_messages=0) as sensor:
        for _ in range(BACKLOG_BYTES // MAX_TASK_BYTES):
            await sensor.publish("task/mnist", b"x" * MAX_TASK_BYTES, qos=1)


@pytest.mark.mosquitto
@pytest.mark.serial
async def test_a_backlog_of_200_megabytes_does_not_slow_down_others() -> None:
    with running_broker("mosquitto") as broker:
        await round_trips_s(broker)
        alone_s = await round_trips_s(broker)
        await leave_a_backlog(broker)
        before = written_bytes(broker)
        beside_s = await round_trips_s(broker)
        written = written_bytes(broker) - before
    for name, took_s in (("alone", alone_s), ("beside the backlog", beside_s)):
        log.info("%s: mean %.2f ms, worst %.0f ms", name, 1e3 * statistics.mean(took_s), 1e3 * max(took_s))
    log.info("written meanwhile: %.1f MB", written / MEBIBYTE)
    assert written < BACKLOG_BYTES / 4
    assert statistics.mean(beside_s) < MOST_RATIO * max(statistics.mean(alone_s), LEAST_FLOOR_S)
