"""Which frames of a camera are sent, and which one waits."""

import asyncio
from collections.abc import Sequence

import numpy as np

from splitplace.commands.camera.frames import Chooser, Frame, Waiting


def _frame(at_s: float | None, grey: int = 0, bright_rows: int = 0) -> Frame:
    thumbnail = np.full((48, 64), grey, np.uint8)
    thumbnail[:bright_rows] = 255
    return Frame(f"at {at_s}", at_s, lambda: b"", lambda: thumbnail)


def _chosen(chooser: Chooser, frames: Sequence[Frame]) -> list[float | None]:
    return [frame.at_s for frame in frames if chooser.wants(frame)]


def test_one_frame_in_a_while_is_sent() -> None:
    frames = [_frame(number / 10) for number in range(30)]
    assert _chosen(Chooser(1.0, on_motion=False), frames) == [0.0, 1.0, 2.0]


def test_every_picture_without_a_time_is_sent() -> None:
    assert len(_chosen(Chooser(1.0, on_motion=False), [_frame(None)] * 5)) == 5


def test_only_what_moves_is_sent_and_slow_changes_of_light_are_not() -> None:
    still = [_frame(second, grey=100 + second) for second in range(10)]
    moving = [_frame(10.0, grey=110, bright_rows=5), _frame(11.0, grey=110, bright_rows=5)]
    assert _chosen(Chooser(0.5, on_motion=True), [*still, *moving]) == [0, 10.0]


def test_a_clock_that_starts_again_does_not_stop_the_camera() -> None:
    assert _chosen(Chooser(1.0, on_motion=False), [_frame(1000.0), _frame(0.0)]) == [1000.0, 0.0]


async def test_the_newest_frame_replaces_the_one_that_waits() -> None:
    waiting = Waiting()
    for number in range(3):
        await waiting.put(_frame(number), replaces=True)
    frame = await waiting.take()
    waiting.settle()
    assert frame is not None
    assert frame.at_s == 2
    assert waiting.replaced == 2
    await waiting.close()
    assert await waiting.take() is None


async def test_a_recorded_frame_waits_for_its_turn_and_none_is_lost() -> None:
    waiting = Waiting()

    async def put_all() -> None:
        for number in range(5):
            await waiting.put(_frame(number), replaces=False)
        await waiting.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(put_all())
        taken = []
        while (frame := await waiting.take()) is not None:
            waiting.settle()
            taken.append(frame.at_s)
    assert taken == [0, 1, 2, 3, 4]
    assert waiting.replaced == 0
