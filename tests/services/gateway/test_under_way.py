"""Messages that kill the gateway: what the next gateway does with them."""

import asyncio
from pathlib import Path

import pytest

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.services.gateway.refusals import TaskRefusedError
from splitplace.services.gateway.under_way import UnderWay
from tests.support.damages import DAMAGES
from tests.support.waiting import until


def raw(payload: bytes) -> RawReceived:
    return RawReceived({"application": "digits"}, payload, RequestProperties())


def contents(file: Path) -> bytes:
    return file.read_bytes()


def put(file: Path, content: bytes) -> None:
    file.write_bytes(content)


async def die_of(file: Path, *payloads: bytes) -> None:
    """Run a gateway that ends, without a word, while it works on these."""
    gateway = UnderWay(file, "1.0")
    gateway.__enter__()
    work = [gateway.working_on(raw(payload)) for payload in payloads]
    for context in work:
        await context.__aenter__()
    kept = contents(file)
    for context in work:
        await context.__aexit__(None, None, None)
    gateway.__exit__(None, None, None)
    put(file, kept)


async def test_a_message_is_refused_the_third_time_and_others_are_not(tmp_path: Path) -> None:
    file = tmp_path / "under-way"
    await die_of(file, b"poison", b"beside it")
    with UnderWay(file, "1.0") as gateway:
        async with gateway.working_on(raw(b"beside it")):
            pass
    await die_of(file, b"poison")
    with UnderWay(file, "1.0") as gateway:
        with pytest.raises(TaskRefusedError, match="died 2 times"):
            async with gateway.working_on(raw(b"poison")):
                pass
        async with gateway.working_on(raw(b"beside it")):
            pass


async def test_a_message_that_is_handled_well_is_no_suspect_any_more(tmp_path: Path) -> None:
    file = tmp_path / "under-way"
    for _ in range(5):
        await die_of(file, b"unlucky")
        with UnderWay(file, "1.0") as gateway:
            async with gateway.working_on(raw(b"unlucky")):
                pass


async def test_suspects_are_tried_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "under-way"
    await die_of(file, b"one", b"two")
    working: list[bytes] = []
    go_on = asyncio.Event()
    with UnderWay(file, "1.0") as gateway:

        async def work(payload: bytes) -> None:
            async with gateway.working_on(raw(payload)):
                working.append(payload)
                assert working in ([b"one"], [b"two"])
                await go_on.wait()
                working.clear()

        suspects = [asyncio.create_task(work(payload)) for payload in (b"one", b"two")]
        await until(working.copy)
        async with gateway.working_on(raw(b"fresh")):
            go_on.set()
        await asyncio.gather(*suspects)


async def test_another_version_tries_again(tmp_path: Path) -> None:
    file = tmp_path / "under-way"
    await die_of(file, b"poison")
    await die_of(file, b"poison")
    with UnderWay(file, "1.1") as gateway:
        async with gateway.working_on(raw(b"poison")):
            pass


@pytest.mark.parametrize("content", [b"", b"\xff" * 10, b"\xff" * 256 * 18])
async def test_a_file_that_makes_no_sense_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "under-way"
    put(file, content)
    with UnderWay(file, "1.0") as gateway:
        async with gateway.working_on(raw(b"a task")):
            pass


async def test_without_a_file_messages_are_handled_all_the_same(tmp_path: Path) -> None:
    with UnderWay(tmp_path / "missing" / "under-way", "1.0") as gateway:
        async with gateway.working_on(raw(b"a task")):
            pass


async def test_many_at_once_need_no_slot_each(tmp_path: Path) -> None:
    with UnderWay(tmp_path / "under-way", "1.0") as gateway:
        work = [gateway.working_on(raw(b"%d" % number)) for number in range(400)]
        for context in work:
            await context.__aenter__()
        for context in work:
            await context.__aexit__(None, None, None)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_costs_what_it_knew_and_nothing_else(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "under-way"
    await die_of(file, b"x")
    DAMAGES[damage](file)
    with UnderWay(file, "1.0") as gateway:
        async with gateway.working_on(raw(b"y")):
            pass


def test_the_file_has_its_place_on_the_disk_before_it_is_mapped(tmp_path: Path) -> None:
    """Where a hole of a mapped file cannot be filled, the kernel ends the process."""
    with UnderWay(tmp_path / "under-way", "1.0"):
        seen = (tmp_path / "under-way").stat()
        assert seen.st_blocks * 512 >= seen.st_size > 0
