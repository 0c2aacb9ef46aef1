"""Services that share a process hand messages over; everybody else gets a copy."""

from splitplace.bus.connection import Bus, Received
from splitplace.bus.exchange import HANDED_OVER, Exchange
from splitplace.bus.service import Service
from splitplace.bus.settings import Settings
from splitplace.messages.task import SettleTask
from splitplace.messages.topics import (
    CLUSTER_NODE,
    GATEWAY,
    JOB_PLACED,
    JOB_SETTLE,
    NODE_CANCEL,
    PLACER,
    RESOURCE_MONITOR,
    RESULT_AGGREGATOR,
    SERVICES,
)
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import until

TASK = "camera.t1.00000000"


class Reader:
    """A service that keeps what it is told."""

    def __init__(self, url: str, exchange: Exchange) -> None:
        self.service = Service(RESULT_AGGREGATOR, Settings(broker=url), exchange=exchange)
        self.service.bus.subscribe(JOB_SETTLE, self._on_settle)
        self.told: list[SettleTask] = []

    async def _on_settle(self, received: Received[SettleTask]) -> None:
        assert received.parameters == {"task": received.message.task}
        self.told.append(received.message)


def test_only_what_everybody_publishes_here_is_handed_over() -> None:
    assert all(Exchange(SERVICES).carries(topic) for topic in HANDED_OVER)
    assert not Exchange(SERVICES).carries(NODE_CANCEL)
    without_placer = Exchange(set(SERVICES) - {PLACER})
    assert not without_placer.carries(JOB_PLACED)
    assert without_placer.carries(JOB_SETTLE)


def test_copies_are_sure_to_arrive_where_a_service_elsewhere_reads_them() -> None:
    assert Exchange(SERVICES).copy_qos(JOB_SETTLE) == 0
    assert Exchange(SERVICES).copy_qos(CLUSTER_NODE) == 1, "the broker keeps it"
    assert Exchange({GATEWAY, RESOURCE_MONITOR}).copy_qos(JOB_SETTLE) == 1


async def test_the_very_object_is_handed_over_and_an_onlooker_gets_a_copy(broker_url: str) -> None:
    exchange, onlooker = Exchange(SERVICES), Observer(broker_url, JOB_SETTLE)
    reader, writer = (
        Reader(broker_url, exchange),
        Service(GATEWAY, Settings(broker=broker_url), exchange=exchange),
    )
    messages = [SettleTask(task=f"camera.t{number}.00000000") for number in range(20)]
    async with onlooker.bus, running(reader.service.run()), running(writer.run()):
        await onlooker.bus.connected()
        await writer.connected()
        await reader.service.connected()
        for number, message in enumerate(messages):
            if number % 2:
                writer.bus.send(JOB_SETTLE, message)
            else:
                assert await writer.bus.publish(JOB_SETTLE, message)
        await until(lambda: len(onlooker.heard(JOB_SETTLE)) == len(messages))
    assert len(reader.told) == len(messages), "none comes back from the broker"
    assert all(told is message for told, message in zip(reader.told, messages, strict=True))
    assert onlooker.heard(JOB_SETTLE) == messages


async def test_what_others_put_on_such_a_topic_is_not_read(broker_url: str) -> None:
    exchange, outsider = Exchange(SERVICES), Observer(broker_url, JOB_SETTLE)
    reader, writer = (
        Reader(broker_url, exchange),
        Service(GATEWAY, Settings(broker=broker_url), exchange=exchange),
    )
    async with outsider.bus, running(reader.service.run()), running(writer.run()):
        await outsider.bus.connected()
        await reader.service.connected()
        await outsider.bus.publish(JOB_SETTLE, SettleTask(task="camera.forged.00000000"))
        await until(lambda: outsider.heard(JOB_SETTLE))
        writer.bus.send(JOB_SETTLE, SettleTask(task=TASK))
        await until(lambda: reader.told)
    assert [message.task for message in reader.told] == [TASK]


async def test_services_talk_while_the_broker_is_away() -> None:
    exchange, nobody = Exchange(SERVICES), "mqtt://127.0.0.1:9"
    reader, writer = Reader(nobody, exchange), Service(GATEWAY, Settings(broker=nobody), exchange=exchange)
    async with running(reader.service.run()), running(writer.run()):
        writer.bus.send(JOB_SETTLE, SettleTask(task=TASK))
        await until(lambda: reader.told)
    assert reader.told[0].task == TASK


async def test_an_error_in_a_handler_costs_only_its_message() -> None:
    exchange, nobody = Exchange(SERVICES), "mqtt://127.0.0.1:9"
    told: list[str] = []

    async def on_settle(received: Received[SettleTask]) -> None:
        told.append(received.message.task)
        if len(told) == 1:
            raise RuntimeError("broken")

    reader = Service(RESULT_AGGREGATOR, Settings(broker=nobody), exchange=exchange)
    reader.bus.subscribe(JOB_SETTLE, on_settle)
    writer = Service(GATEWAY, Settings(broker=nobody), exchange=exchange)
    async with running(reader.run()), running(writer.run()):
        for number in range(2):
            writer.bus.send(JOB_SETTLE, SettleTask(task=f"camera.t{number}.00000000"))
        await until(lambda: len(told) == 2)
    assert reader.statistics.rejected == 1
    assert reader.statistics.received == 2


async def test_services_with_the_same_user_publish_copies_in_the_order_of_events(broker_url: str) -> None:
    exchange = Exchange(SERVICES)
    one, two = (Service(name, Settings(broker=broker_url), exchange=exchange) for name in (GATEWAY, PLACER))
    other = Service(RESULT_AGGREGATOR, Settings(broker=broker_url, username="other"), exchange=exchange)
    assert exchange.carrier(one.bus) is exchange.carrier(two.bus) is one.bus
    assert exchange.carrier(other.bus) is other.bus


async def test_what_was_published_without_an_account_is_written_before_the_connection_ends(
    broker_url: str,
) -> None:
    onlooker = Observer(broker_url, JOB_SETTLE)
    messages = [SettleTask(task=f"camera.t{number}.00000000") for number in range(50)]
    async with onlooker.bus:
        await onlooker.bus.connected()
        async with Bus(Settings(broker=broker_url), "brief") as brief:
            await brief.connected()
            for message in messages:
                brief.post(JOB_SETTLE.name_of(message), JOB_SETTLE.encoded(message), qos=0)
        await until(lambda: len(onlooker.heard(JOB_SETTLE)) == len(messages))
    assert brief.statistics.sent_bytes == sum(len(JOB_SETTLE.encoded(message)) for message in messages)
