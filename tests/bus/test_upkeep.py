"""Retained messages that others delete or overwrite are published again, and never in a storm."""

import pytest

from splitplace.bus.service import Service, new_boot_id
from splitplace.bus.settings import Settings
from splitplace.bus.upkeep import MAX_REMEMBERED, Differences
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.topics import PLACER, SERVICE_STATUS
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import until

STATUS = SERVICE_STATUS.at(service=PLACER)
OTHER_VERSION = (
    ServiceStatus(service=PLACER, boot=new_boot_id(), online=True, software="9").model_dump_json().encode()
).replace(b'"version":2', b'"version":1')
DAMAGES = {"unreadable": b"x", "deleted": b"", "of another version": OTHER_VERSION}


def test_before_the_first_publication_nothing_is_a_difference() -> None:
    differences = Differences()
    differences.heard("a", b"old")
    assert not differences.are_any


def test_what_was_changed_is_published_again_once() -> None:
    differences = Differences()
    differences.published({"a": b"1", "b": b"2"})
    differences.heard("a", b"1")
    assert not differences.are_any
    differences.heard("a", b"")
    differences.heard("b", b"x")
    assert differences.take(clear=False) == {"a": b"1", "b": b"2"}
    assert not differences.are_any


def test_what_is_right_again_needs_no_repair() -> None:
    differences = Differences()
    differences.published({"a": b"1"})
    differences.heard("a", b"x")
    differences.heard("a", b"1")
    assert not differences.are_any


def test_strays_are_cleared_only_where_that_is_wanted_and_a_cleared_topic_is_no_stray() -> None:
    differences = Differences()
    differences.heard("stray", b"x")
    differences.published({"a": b"1"})
    assert differences.take(clear=False) == {}
    differences.heard("stray", b"x")
    assert differences.take(clear=True) == {"stray": b""}
    differences.heard("stray", b"")
    assert not differences.are_any


def test_what_stood_there_before_a_publication_is_replaced_by_it() -> None:
    differences = Differences()
    differences.heard("a", b"old")
    differences.published({"a": b"new"})
    assert not differences.are_any


def test_a_flood_of_strays_takes_bounded_memory() -> None:
    differences = Differences()
    differences.published({"a": b"1"})
    for number in range(2 * MAX_REMEMBERED):
        differences.heard(f"stray-{number}", b"x")
    assert len(differences.take(clear=True)) == MAX_REMEMBERED


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_status_that_was_damaged_is_announced_again(
    broker_url: str, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    observer = Observer(broker_url, SERVICE_STATUS)
    async with observer.bus, running(Service(PLACER, Settings(broker=broker_url)).run()):
        hello = await observer.until(SERVICE_STATUS)
        for _ in range(2):
            observer.forget()
            await observer.publish_raw(STATUS, damage, retain=True)
            again = await observer.until(SERVICE_STATUS)
            assert (again.online, again.boot) == (True, hello.boot)
        late = Observer(broker_url, SERVICE_STATUS, identifier="late")
        async with late.bus:
            assert (await late.until(SERVICE_STATUS)).online
    assert "ERROR" not in {record.levelname for record in caplog.records}


async def test_a_flood_of_damage_costs_few_announcements(mosquitto_url: str) -> None:
    service = Service(PLACER, Settings(broker=mosquitto_url))
    observer = Observer(mosquitto_url, SERVICE_STATUS)
    async with observer.bus, running(service.run()):
        await observer.until(SERVICE_STATUS)
        observer.forget()
        for _ in range(300):
            await observer.publish_raw(STATUS, b"x", retain=True)
        await observer.until(SERVICE_STATUS)
        await until(lambda: service.statistics.rejected == 300)
        assert len(observer.heard(SERVICE_STATUS)) <= 10, "about one a second"


async def test_a_goodbye_is_the_last_word_also_under_damage(mosquitto_url: str) -> None:
    observer = Observer(mosquitto_url, raw=[SERVICE_STATUS])
    async with observer.bus:
        async with running(Service(PLACER, Settings(broker=mosquitto_url)).run()):
            await until(lambda: observer.payloads(SERVICE_STATUS))
            await observer.publish_raw(STATUS, b"x", retain=True)
        late = Observer(mosquitto_url, SERVICE_STATUS, identifier="late")
        async with late.bus:
            assert not (await late.until(SERVICE_STATUS)).online
