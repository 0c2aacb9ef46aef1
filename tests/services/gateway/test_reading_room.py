"""Who waits for whom when messages are decoded."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from splitplace.services.gateway.reading_room import MOST_OF_ONE_SENSOR, ReadingRoom
from splitplace.services.gateway.refusals import TaskRefusedError


@pytest.fixture
def room() -> Iterator[ReadingRoom]:
    room = ReadingRoom()
    yield room
    room.close()


async def test_a_sensor_that_floods_keeps_a_thread_free_for_others(room: ReadingRoom) -> None:
    go_on = threading.Event()
    flood = [asyncio.create_task(room.run("flood", lambda: go_on.wait(60))) for _ in range(8)]
    assert await asyncio.wait_for(room.run("camera", lambda: 7), 60) == 7
    assert not any(task.done() for task in flood)
    go_on.set()
    await asyncio.gather(*flood)


async def test_what_one_sensor_sends_beyond_its_share_is_refused_and_later_taken_again(
    room: ReadingRoom,
) -> None:
    go_on = threading.Event()
    flood = [
        asyncio.create_task(room.run("flood", lambda: go_on.wait(60))) for _ in range(MOST_OF_ONE_SENSOR)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TaskRefusedError, match="wait for answers"):
        await room.run("flood", lambda: None)
    go_on.set()
    await asyncio.gather(*flood)
    assert await room.run("flood", lambda: 8) == 8


async def test_an_error_is_passed_on_and_ends_nothing(room: ReadingRoom) -> None:
    with pytest.raises(ZeroDivisionError):
        await room.run("camera", lambda: 1 // 0)
    assert await room.run("camera", lambda: 9) == 9
