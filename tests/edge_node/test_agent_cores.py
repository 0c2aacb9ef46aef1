"""Nodes with several cores on real brokers: both ways of using them, and a speed that changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitplace.edge_node import own_speed, speed_keeper
from splitplace.edge_node.call import call
from splitplace.edge_node.gains import Gains
from splitplace.messages.cluster import NodeSpeed
from tests.edge_node.world import routes, world
from tests.support.tiny_application import build_tiny_application, right_answers, tiny_images
from tests.support.waiting import until

TWO_CORES = Gains(threads=2, alone=1.6, together=1.92)


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call had all cores, in their order."""
    seen: list[bool] = []

    def noted(*arguments: Any, all_cores: bool, compress: bool) -> Any:
        seen.append(all_cores)
        return call(*arguments, all_cores=all_cores, compress=compress)

    monkeypatch.setattr("splitplace.edge_node.executor.call", noted)
    return seen


async def test_a_node_gives_the_right_answers_whichever_way_it_uses_its_cores(
    broker_url: str, tmp_path: Path, modes: list[bool]
) -> None:
    images, _ = tiny_images(4)
    application = build_tiny_application(tmp_path / "models")
    count = 40
    async with world(broker_url, tmp_path, application=application) as w:
        await w.start_node("n1", gains=TWO_CORES)
        (route,) = routes(application.variant("whole"), ["n1"])
        await w.outside.send(route, images, task="c.alone")
        await until(lambda: w.outside.outputs, 20)
        assert modes == [True]
        for number in range(count):  # they wait until the last one has come
            await w.outside.send(route, images, micro_batch=number, micro_batches=count)
        await until(lambda: len(w.outside.outputs) == 1 + count, 30)
        vitals, info = await w.next_vitals("n1"), w.info("n1")
    for number in range(count):
        np.testing.assert_array_equal(w.outside.output("whole", micro_batch=number), right_answers(images))
    assert vitals.executed == len(modes) == 1 + count
    assert info.speed == NodeSpeed(score=80.0, threads=2, speed_up=1.6, together=1.2)
    (timing,) = info.timings
    assert timing.milliseconds_per_call is not None
    assert 1 <= timing.together <= 1.92


async def test_a_node_says_that_it_has_become_slower_and_that_it_has_recovered(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = [50.0]
    gains = [replace(TWO_CORES, alone=1.0)]
    monkeypatch.setattr(own_speed, "LOOK_EVERY_MS", 50.0)
    monkeypatch.setattr(own_speed, "DOUBTFUL_LOOK_EVERY_MS", 50.0)
    monkeypatch.setattr(own_speed, "GAINS_EVERY_MS", 50.0)
    monkeypatch.setattr(speed_keeper, "measure_score", lambda _: score[0])
    monkeypatch.setattr(speed_keeper, "measure_gains", lambda *_: gains[0])
    async with world(broker_url, tmp_path) as w:
        await w.start_node("n1", gains=gains[0])

        def said() -> float:
            speed = w.info("n1").speed
            assert speed is not None
            return speed.score

        assert said() == 50.0
        for newest in (20.0, 50.0):
            score[0] = newest
            await until(lambda: said() == score[0], 20)
        gains[0] = TWO_CORES
        await until(lambda: said() == 80.0, 20)
