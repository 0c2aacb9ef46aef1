"""Handlers that are called as messages arrive, without a queue in between."""

import asyncio

import pytest
from paho.mqtt.client import MQTTMessage

from splitplace.bus.handlers import Handlers
from splitplace.bus.incoming import Received
from splitplace.bus.statistics import Statistics
from splitplace.bus.subscriptions import Rest
from splitplace.messages.cluster import CancelTask
from splitplace.messages.task import SettleTask
from splitplace.messages.topics import JOB_SETTLE, NODE_CANCEL
from tests.support.waiting import until


class Reader:
    """Handlers of one connection, and what they have seen."""

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.handlers = Handlers("p", self.statistics, 10)
        self.seen: list[str] = []
        self.rest: Rest | None = None
        self.acknowledged: list[int] = []
        self.handlers.connected(self.acknowledged.append)
        self._workers: list[asyncio.Task[None]] = []

    def settle(self, received: Received[SettleTask]) -> Rest | None:
        if received.message.task == "c.broken":
            raise RuntimeError("broken")
        self.seen.append(received.message.task)
        return self.rest

    def cancel(self, received: Received[CancelTask]) -> Rest | None:
        self.seen.append(f"cancel {received.message.task}")
        return self.rest

    def start(self) -> None:
        self._workers = [asyncio.create_task(work) for _, work in self.handlers.start()]

    def stop(self) -> None:
        self.handlers.stop()
        for worker in self._workers:
            worker.cancel()


@pytest.fixture
async def reader() -> Reader:
    return Reader()


def settled(task: str) -> Received[SettleTask]:
    return Received({"task": task}, SettleTask(task=task), memoryview(b""))


def cancelled(task: str) -> Received[CancelTask]:
    return Received({"node": "n1"}, CancelTask(node="n1", task=task, attempt=1), memoryview(b""))


def arrived(packet: int, payload: bytes) -> MQTTMessage:
    message = MQTTMessage(packet, b"p/node/n1/cancel")
    message.payload, message.qos = payload, 1
    return message


async def test_what_is_handed_over_is_handled_in_the_next_turn_in_its_order_whatever_its_topic(
    reader: Reader,
) -> None:
    settle = reader.handlers.add_local_at_once(JOB_SETTLE, reader.settle)
    cancel = reader.handlers.add_local_at_once(NODE_CANCEL, reader.cancel)
    reader.start()
    settle("", settled("c.1"))
    cancel("", cancelled("c.1"))
    settle("", settled("c.2"))
    assert reader.seen == []
    await asyncio.sleep(0)
    assert reader.seen == ["c.1", "cancel c.1", "c.2"]
    reader.stop()


async def test_what_comes_before_the_start_waits_and_what_comes_after_the_end_is_dropped(
    reader: Reader,
) -> None:
    settle = reader.handlers.add_local_at_once(JOB_SETTLE, reader.settle)
    settle("", settled("c.early"))
    await asyncio.sleep(0)
    assert reader.seen == []
    reader.start()
    await asyncio.sleep(0)
    reader.stop()
    settle("", settled("c.late"))
    await asyncio.sleep(0)
    assert reader.seen == ["c.early"]


async def test_a_handler_that_fails_costs_its_message_only(reader: Reader) -> None:
    settle = reader.handlers.add_local_at_once(JOB_SETTLE, reader.settle)
    reader.start()
    settle("", settled("c.broken"))
    settle("", settled("c.2"))
    await until(lambda: reader.seen)  # the log may take longer than a turn
    assert (reader.seen, reader.statistics.rejected) == (["c.2"], 1)
    reader.stop()


async def test_a_message_from_the_broker_is_handled_and_acknowledged_as_it_arrives(reader: Reader) -> None:
    reader.handlers.add_at_once(NODE_CANCEL, reader.cancel, {})
    reader.start()
    reader.handlers.dispatch(arrived(1, NODE_CANCEL.encoded(cancelled("c.1").message)))
    reader.handlers.dispatch(arrived(2, b"no message"))
    assert (reader.seen, reader.acknowledged, reader.statistics.rejected) == (["cancel c.1"], [1, 2], 1)
    reader.stop()


async def test_what_a_handler_leaves_to_a_worker_is_acknowledged_when_that_has_ended(reader: Reader) -> None:
    may_end, has_ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        has_ended.set()

    reader.rest = work
    reader.handlers.add_at_once(NODE_CANCEL, reader.cancel, {})
    reader.start()
    reader.handlers.dispatch(arrived(1, NODE_CANCEL.encoded(cancelled("c.1").message)))
    await asyncio.sleep(0)
    assert (reader.seen, reader.acknowledged) == (["cancel c.1"], [])
    may_end.set()
    await has_ended.wait()
    await asyncio.sleep(0)
    assert reader.acknowledged == [1]
    reader.stop()
