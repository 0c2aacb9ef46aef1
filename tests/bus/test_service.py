"""The frame of all parts against real brokers: status, periodic work, errors in the background."""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from splitplace.bus.background import Alarm, BackgroundTasks, PeriodicWork, now_ms
from splitplace.bus.connection import Received
from splitplace.bus.service import Service, new_boot_id
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker
from splitplace.messages.cluster import CancelTask, NodeStatus, ServiceStatus
from splitplace.messages.topics import (
    AVAILABILITY_SERVICE,
    METRICS_SERVICE,
    NODE_CANCEL,
    NODE_STATUS,
    PLACER,
    SERVICE_STATUS,
)
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import until


class UnexpectedError(Exception):
    """What no code expects."""


def is_online(status: ServiceStatus) -> bool:
    return status.online


async def test_the_goodbye_carries_the_boot_id_that_was_announced(broker_url: str) -> None:
    observer = Observer(broker_url, SERVICE_STATUS)
    async with observer.bus:
        await observer.bus.connected()
        boots = []
        for _ in range(2):
            async with running(Service(PLACER, Settings(broker=broker_url)).run()):
                hello = await observer.until(SERVICE_STATUS, is_online)
            goodbye = await observer.until(SERVICE_STATUS, lambda status: not status.online)
            assert goodbye == hello.model_copy(update={"online": False})
            boots.append(hello.boot)
            observer.forget()
    assert boots[0] != boots[1], "each start has a boot id of its own"


async def test_a_service_that_is_killed_is_offline_with_its_boot_id(broker_url: str) -> None:
    observer = Observer(broker_url, SERVICE_STATUS)
    async with observer.bus:
        with service_process(broker_url, "await service.run()") as process:
            hello = await observer.until(SERVICE_STATUS, is_online, 20)
            process.kill()
            will = await observer.until(SERVICE_STATUS, lambda status: not status.online, 10)
    assert will.boot == hello.boot


async def test_availability_is_a_plain_word_that_the_broker_takes_back(broker_url: str) -> None:
    observer = Observer(broker_url, raw=[AVAILABILITY_SERVICE])
    async with observer.bus:
        with service_process(broker_url, "await service.run()") as process:
            await until(lambda: words(observer) == [b"online"], 20)
            process.kill()
            await until(lambda: words(observer) == [b"online", b"offline"], 10)
        async with running(Service(PLACER, Settings(broker=broker_url)).run()):
            await until(lambda: words(observer)[-1] == b"online")
        await until(lambda: words(observer)[-1] == b"offline")


def words(observer: Observer) -> list[bytes]:
    """What was said of the placer, without repetitions."""
    said = [raw.payload for raw in observer.payloads(AVAILABILITY_SERVICE)]
    return [word for word, before in zip(said, [b"", *said], strict=False) if word != before]


async def test_a_service_is_announced_again_to_a_new_broker_after_what_it_says_of_itself(
    broker: Broker,
) -> None:
    service, observer = Service(PLACER, Settings(broker=broker.url)), Observer(broker.url, SERVICE_STATUS)
    heard_before_introduction = []

    async def introduce() -> None:
        heard_before_introduction.append(len(observer.heard(SERVICE_STATUS)))

    service.on_connect(introduce)
    async with observer.bus, running(service.run()):
        first = await observer.until(SERVICE_STATUS, is_online)
        observer.forget()
        await asyncio.to_thread(broker.kill)
        await until(lambda: not service.health.is_connected, 10)
        await asyncio.to_thread(broker.start)
        assert await observer.until(SERVICE_STATUS, is_online, 20) == first
    assert heard_before_introduction == [0, 0]


async def test_a_service_is_online_only_when_all_its_connections_are_up(mosquitto_url: str) -> None:
    service, observer = Service(PLACER, Settings(broker=mosquitto_url)), Observer(mosquitto_url, NODE_CANCEL)
    cancelled: list[CancelTask] = []

    async def on_cancel(received: Received[CancelTask]) -> None:
        cancelled.append(received.message)

    service.connection("second").subscribe(NODE_CANCEL, on_cancel)
    watcher = Observer(mosquitto_url, SERVICE_STATUS, identifier="watcher")
    async with observer.bus, watcher.bus, running(service.run()):
        await watcher.until(SERVICE_STATUS, is_online)
        assert service.health.is_connected
        await observer.publish(NODE_CANCEL, CancelTask(node="n", task="c.t", attempt=1))
        await until(lambda: cancelled)
        await until(lambda: service.statistics.received == 2, 10)  # the other is its own status


async def test_a_node_has_a_status_of_its_own_and_no_service_metrics(mosquitto_url: str) -> None:
    status = NodeStatus(node="n1", boot=new_boot_id(), online=False)
    service = Service("node-n1", Settings(broker=mosquitto_url), status=status)
    observer = Observer(mosquitto_url, NODE_STATUS, METRICS_SERVICE)
    async with observer.bus, running(service.run()):
        assert await observer.until(NODE_STATUS) == status.model_copy(update={"online": True})
        assert observer.heard(METRICS_SERVICE) == []


async def test_no_connection_of_a_part_has_the_client_id_of_another_part(mosquitto_url: str) -> None:
    """The tensors of a node `kit` threw out a node `kit-tensors`, and the other way round."""
    settings = Settings(broker=mosquitto_url)
    short, long = (
        Service(
            name,
            settings,
            status=NodeStatus(node=name.removeprefix("node-"), boot=new_boot_id(), online=False),
        )
        for name in ("node-kit", "node-kit-tensors")
    )
    short.connection("tensors")
    long.connection("tensors")
    async with running(short.run()), running(long.run()):
        await short.connected()
        await long.connected()
        await until(lambda: short.health.is_connected and long.health.is_connected)
        names = [bus._identity.client_id for part in (short, long) for bus in part._connections]
        assert len(set(names)) == 4


async def test_messages_that_were_received_and_rejected_are_published_as_metrics(mosquitto_url: str) -> None:
    service, observer = (
        Service(PLACER, Settings(broker=mosquitto_url)),
        Observer(mosquitto_url, METRICS_SERVICE),
    )

    async def ignore(_: Received[CancelTask]) -> None:
        pass

    service.bus.subscribe(NODE_CANCEL, ignore)
    async with observer.bus, running(service.run()):
        await service.connected()
        await observer.publish_raw(NODE_CANCEL.at(node="n"), b"noise")
        metrics = await observer.until(METRICS_SERVICE, lambda metrics: metrics.rejected)
        assert (metrics.service, metrics.rejected) == (PLACER, 1)
        assert metrics.received <= 2, "its own status, and the noise"


async def test_going_online_and_offline_is_one_line_each_without_credentials(
    mosquitto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = mosquitto_url.replace("mqtt://", "mqtt://user:secret@")
    caplog.set_level(logging.INFO, "splitplace.bus.service")
    async with running(Service(PLACER, Settings(broker=secret)).run()):
        await until(lambda: caplog.messages)
    online, offline = caplog.messages
    assert online.startswith(f"placer is online: broker {mosquitto_url}, version ")
    assert offline == "placer is offline"


async def test_periodic_work_begins_at_once_and_is_late_while_a_round_hangs(mosquitto_url: str) -> None:
    service = Service(PLACER, Settings(broker=mosquitto_url))
    rounds, may_end = 0, asyncio.Event()

    async def count() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            await may_end.wait()

    service.every(0.01, count)
    async with running(service.run()):
        await until(lambda: rounds == 3)
        await until(lambda: service.health.late_ms > 50)
        may_end.set()
        await until(lambda: rounds > 5)
        await until(lambda: service.health.late_ms < 50)


async def test_work_for_online_times_waits_for_the_broker_and_is_not_late_meanwhile(broker: Broker) -> None:
    service = Service(PLACER, Settings(broker=broker.url))
    rounds = {"online": 0, "always": 0}

    async def online() -> None:
        rounds["online"] += 1

    async def always() -> None:
        rounds["always"] += 1

    service.every(0.01, online, online_only=True)
    service.every(0.01, always)
    await asyncio.to_thread(broker.kill)
    async with running(service.run()):
        await until(lambda: rounds["always"] > 20)
        assert rounds["online"] == 0
        assert service.health.late_ms < 1000
        assert not service.health.is_connected
        await asyncio.to_thread(broker.start)
        await until(lambda: rounds["online"], 20)


@pytest.mark.parametrize("kind", ["periodic", "spawned", "introduction"])
async def test_an_error_in_background_work_ends_the_service_with_a_goodbye(
    mosquitto_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(PLACER, Settings(broker=mosquitto_url))
    observer = Observer(mosquitto_url, SERVICE_STATUS)

    async def fail() -> None:
        await service.connected()
        raise UnexpectedError(kind)

    if kind == "periodic":
        service.every(1.0, fail)
    elif kind == "introduction":
        service.on_connect(fail)
    else:
        service.spawn(fail(), "doomed")
    async with observer.bus:
        await observer.bus.connected()
        with pytest.raises(UnexpectedError, match=kind):
            await service.run()
        await observer.until(SERVICE_STATUS, lambda status: not status.online)
    assert any(f"failed: UnexpectedError('{kind}')" in line for line in caplog.messages)


async def test_a_task_that_is_cancelled_or_ends_does_not_end_the_service(mosquitto_url: str) -> None:
    service = Service(PLACER, Settings(broker=mosquitto_url))
    async with running(service.run()) as run:
        await service.connected()
        waiting = service.spawn(asyncio.Event().wait(), "waits")  # type: ignore[arg-type]
        waiting.cancel()
        await service.spawn(asyncio.sleep(0), "ends")
        await until(waiting.cancelled)
        assert not run.done()


async def test_an_alarm_rings_at_the_time_it_was_last_moved_to() -> None:
    rung: list[float] = []
    alarm = Alarm(lambda: rung.append(now_ms()))
    tasks = BackgroundTasks()
    tasks.spawn(alarm.run(), "alarm")
    began_ms = now_ms()
    alarm.set(began_ms + 60_000)
    await asyncio.sleep(0)
    alarm.set(began_ms + 50)
    await until(lambda: rung)
    assert 50 <= rung[0] - began_ms < 1000
    alarm.set(now_ms() + 30)
    alarm.set(None)
    alarm.set(now_ms() + 100)
    await until(lambda: len(rung) == 2)
    assert rung[1] - rung[0] >= 100
    await tasks.stop()


async def test_an_alarm_that_is_moved_again_and_again_rings_once_at_the_last_time() -> None:
    rung: list[float] = []
    alarm = Alarm(lambda: rung.append(now_ms()))
    alarm.set(now_ms())  # before it runs
    tasks = BackgroundTasks()
    tasks.spawn(alarm.run(), "alarm")
    await until(lambda: rung)
    began_ms = now_ms()
    for due_ms in range(10, 110, 10):
        alarm.set(began_ms + due_ms)
    await until(lambda: len(rung) == 2)
    assert rung[1] - began_ms >= 100
    alarm.set(now_ms() + 20)
    await tasks.stop()
    clock, later = BackgroundTasks(), Alarm(lambda: rung.append(now_ms()))
    clock.spawn(later.run(), "later alarm")
    later.set(now_ms() + 40)
    await until(lambda: len(rung) == 3)  # only this one
    await clock.stop()
    assert len(rung) == 3


async def test_an_alarm_whose_action_fails_ends_the_service() -> None:
    def doomed() -> None:
        raise UnexpectedError

    alarm = Alarm(doomed)
    tasks = BackgroundTasks()
    tasks.spawn(alarm.run(), alarm.name)
    await asyncio.sleep(0)
    alarm.set(now_ms())
    with pytest.raises(UnexpectedError):
        await tasks.failed()


async def test_periodic_work_is_named_in_the_log_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def doomed() -> None:
        raise UnexpectedError

    tasks = BackgroundTasks()
    work = PeriodicWork(1.0, doomed)
    tasks.spawn(work.run(), work.name)
    with pytest.raises(UnexpectedError):
        await tasks.failed()
    assert any("doomed failed" in line for line in caplog.messages)


async def test_what_is_spawned_after_the_end_never_begins() -> None:
    began = []

    async def work() -> None:
        began.append(True)

    tasks = BackgroundTasks()
    await tasks.stop()
    late = tasks.spawn(work(), "late")
    await until(late.cancelled)
    assert began == []


# --- as a process ------------------------------------------------------------------------------------

PROGRAM = """
import asyncio
from splitplace.bus.command_line import part_command
from splitplace.bus.service import Service
from splitplace.bus.settings import Settings
from splitplace.errors import SplitPlaceError
from splitplace.terminal import run

async def work(settings):
    service = Service("placer", settings)
    async def fail():
        await service.connected()
        raise {error}
    {body}

run(part_command(Settings, work, "Test."), "splitplace placer")
"""


@contextmanager
def service_process(url: str, body: str, error: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM.format(body=body, error=error or "ValueError"), "--broker", url]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = child.communicate(timeout=30)
    return child.returncode, errors


def test_a_process_whose_background_work_fails_ends_with_the_reason_and_exit_code_1(
    mosquitto_url: str,
) -> None:
    body = "service.every(1.0, fail); await service.run()"
    with service_process(mosquitto_url, body, "RuntimeError('out of luck')") as child:
        code, errors = ended(child)
    assert code == 1
    assert "fail failed: RuntimeError('out of luck')" in errors
    assert "placer is offline" in errors


def test_a_process_that_meets_an_error_of_ours_ends_with_its_message_alone(mosquitto_url: str) -> None:
    with service_process(mosquitto_url, "raise SplitPlaceError('no such folder')") as child:
        code, errors = ended(child)
    assert (code, errors.strip()) == (1, "no such folder")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_process_with_a_goodbye_and_exit_code_0(
    mosquitto_url: str, number: signal.Signals
) -> None:
    observer = Observer(mosquitto_url, SERVICE_STATUS)
    async with observer.bus:
        with service_process(mosquitto_url, "await service.run()") as child:
            await observer.until(SERVICE_STATUS, is_online, 20)
            child.send_signal(number)
            await observer.until(SERVICE_STATUS, lambda status: not status.online, 10)
            code, errors = await asyncio.to_thread(ended, child)
    assert code == 0
    assert "Traceback" not in errors


def test_a_process_that_is_cancelled_by_nobody_known_does_not_end_as_if_all_were_well(
    mosquitto_url: str,
) -> None:
    with service_process(mosquitto_url, "raise asyncio.CancelledError") as child:
        code, _ = ended(child)
    assert code == 1
