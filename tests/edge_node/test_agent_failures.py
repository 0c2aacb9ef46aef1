"""Edge nodes when things go wrong: fragments that do not come or fit, garbage, brokers and nodes that die."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from splitplace.commands.processes.broker import Broker
from splitplace.edge_node import loader
from splitplace.edge_node.fetcher import MAX_TRIES
from splitplace.messages.frames import GATEWAY_SENDER, Route
from splitplace.messages.task import StageReport
from splitplace.messages.topics import (
    APPLICATION,
    FRAGMENT_CHUNK,
    NODE_CANCEL,
    NODE_PREPARE,
    TENSOR,
)
from tests.edge_node.world import World, routes, world
from tests.support.odd_networks import build_odd_application, constant, doubling, flat
from tests.support.tiny_application import right_answers, tiny_images
from tests.support.waiting import until

IMAGES, _ = tiny_images(4)


def whole(w: World, node: str = "n1") -> Route:
    (route,) = routes(w.application.variant("whole"), [node])
    return route


async def is_answered(w: World, task: str, node: str = "n1", attempt: int = 1) -> None:
    await w.outside.send(whole(w, node), IMAGES, task=task, attempt=attempt)
    await until(lambda: (task, attempt, "whole", 0) in w.outside.outputs, 20)
    output = w.outside.output("whole", task=task, attempt=attempt)
    np.testing.assert_array_equal(output, right_answers(IMAGES))


async def test_a_fragment_that_exceeds_the_budget_is_refused_before_it_is_fetched(
    broker_url: str, tmp_path: Path
) -> None:
    async with world(broker_url, tmp_path) as w:
        await w.start_node("n1", memory_budget_mb=0.2)  # the whole network is described as 300 kB
        await w.outside.send(whole(w), IMAGES)
        await until(lambda: w.outside.failures, 20)
        (failure,) = w.outside.failures
        assert (failure.task, failure.attempt, failure.stage, failure.kind) == (
            "client.task",
            1,
            "whole",
            "memory",
        )
        assert "needs 300000 bytes of memory, the budget is 209715" in failure.reason
        assert not w.repository.requests


async def test_a_fragment_that_nobody_describes_is_a_failure(
    mosquitto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CATALOGUE_PATIENCE_S", 0.2)
    async with world(mosquitto_url, tmp_path, "n1") as w:
        await w.outside.send(Route(stage="s", node="n1", fragment="0" * 64), IMAGES)
        await until(lambda: w.outside.failures, 20)
        assert w.outside.failures[0].kind == "fragment"
        assert "no application describes" in w.outside.failures[0].reason


async def test_a_fragment_that_the_repository_has_lost_is_a_failure(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        w.store.file_path(w.files(whole(w).fragment)[-1]).unlink()
        for micro_batch in range(3):
            await w.outside.send(whole(w), IMAGES, micro_batch=micro_batch, micro_batches=3)
        await until(lambda: w.outside.failures, 20)
        assert w.outside.failures[0].kind == "fragment"
        assert "has no file" in w.outside.failures[0].reason
        await w.next_vitals("n1")
        assert len(w.outside.failures) == 1, "one report for all micro-batches of a stage"
        assert w.vitals("n1").loaded_bytes == 0


async def test_lost_and_corrupted_chunks_are_fetched_again(mosquitto_url: str, tmp_path: Path) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        w.repository.lose, w.repository.corrupt = {0}, {1}
        await is_answered(w, "c.t")
        assert len(w.repository.requests) == len(w.files(whole(w).fragment)) + 2


async def test_content_that_stays_wrong_is_never_loaded(mosquitto_url: str, tmp_path: Path) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        w.repository.corrupt = set(range(100))
        await w.outside.send(whole(w), IMAGES)
        await until(lambda: w.outside.failures, 20)
        assert w.outside.failures[0].kind == "fragment"
        assert "wrong hash" in w.outside.failures[0].reason
        asked = Counter(request.fragment for request in w.repository.requests)
        assert max(asked.values()) == MAX_TRIES
        assert {path.suffix for path in (tmp_path / "n1").rglob("*") if path.is_file()} <= {".partial"}


async def test_a_tensor_that_does_not_fit_its_fragment_is_a_failure(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        await w.outside.send(whole(w), IMAGES.reshape(4, 16))
        await until(lambda: w.outside.failures, 20)
        assert w.outside.failures[0].kind == "input"
        assert "uint8[4, 16], the fragment reads uint8[N, 1, 4, 4]" in w.outside.failures[0].reason
        await is_answered(w, "c.good")


async def test_a_full_queue_says_that_it_is_busy(mosquitto_url: str, tmp_path: Path) -> None:
    async with world(mosquitto_url, tmp_path) as w:
        w.repository.lose = set(range(100))
        await w.start_node("n1", queue_mb=100 / 2**20)
        await w.outside.send(whole(w), IMAGES, task="c.first")
        await w.outside.send(whole(w), IMAGES, task="c.second")
        await until(lambda: w.outside.failures, 20)
        assert [(failure.task, failure.kind) for failure in w.outside.failures] == [("c.second", "busy")]


async def test_tensors_meant_for_somebody_else_are_rejected(mosquitto_url: str, tmp_path: Path) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        await w.outside.send(whole(w, "n2"), IMAGES, task="c.forged", to="n1")
        await w.outside.send(whole(w), np.zeros((1025, 1, 4, 4), np.uint8), task="c.many")
        await w.outside.send(whole(w), IMAGES, task="c.last", micro_batch=1, micro_batches=1)
        await is_answered(w, "c.good")
        vitals = await w.next_vitals("n1")
        assert vitals.rejected == 3
        assert vitals.executed == 1


async def test_a_node_cannot_send_what_the_gateway_or_another_node_should(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        before = StageReport(stage="before", node="n2", queue_ms=0.0, compute_ms=0.0)
        await w.outside.send(whole(w), IMAGES, task="c.input", sender="intruder")
        await w.outside.send(whole(w), IMAGES, task="c.chain", sender="intruder", trace=(before,))
        await w.outside.send(whole(w), IMAGES, task="c.placed", sender="n2", trace=(before,))
        await until(lambda: w.outside.order == [("c.placed", 0)])
        vitals = await w.next_vitals("n1")
        assert (vitals.rejected, vitals.executed) == (2, 1)


async def test_a_forged_input_takes_neither_the_place_nor_the_attempt_of_the_right_one(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        forged = (StageReport(stage="before", node="intruder", queue_ms=0.0, compute_ms=0.0),)
        right = (StageReport(stage="before", node="n2", queue_ms=0.0, compute_ms=0.0),)
        for attempt in (1, 9):
            await w.outside.send(whole(w), IMAGES, attempt=attempt, sender="intruder", trace=forged)
        await w.outside.send(whole(w), IMAGES, sender="n2", trace=right)
        await until(lambda: len(w.outside.order) == 3)
        assert w.outside.duplicates == 0


async def test_after_garbage_on_every_topic_the_next_good_task_is_answered(
    broker_url: str, tmp_path: Path
) -> None:
    async with world(broker_url, tmp_path, "n1") as w:
        good = whole(w).model_dump_json().encode()
        payloads = [b"", b"{}", b"\x00\x00\x00\x05hello", bytes(100), os.urandom(1000), good, bytes(300_000)]
        names = [
            TENSOR.at(receiver="n1", sender=GATEWAY_SENDER),
            NODE_PREPARE.at(node="n1"),
            NODE_CANCEL.at(node="n1"),
            APPLICATION.at(application="tiny"),
            FRAGMENT_CHUNK.at(fragment=whole(w).fragment),
        ]
        before = w.vitals("n1").rejected
        for _ in range(20):
            for name in names:
                for payload in payloads:
                    await w.outside.bus.publish_raw(name, payload)
        await is_answered(w, "c.good")
        vitals = await w.next_vitals("n1")
        # Chunks of fragments are only listened to while one is fetched.
        assert vitals.rejected - before == 20 * 4 * len(payloads)


async def test_work_goes_on_after_a_broker_restart(broker: Broker, tmp_path: Path) -> None:
    async with world(broker.url, tmp_path, "n1") as w:
        await is_answered(w, "c.before")
        await asyncio.to_thread(broker.kill)
        await until(lambda: not w.outside.bus.is_connected, 20)
        announced = len(w.outside.statuses)
        await asyncio.to_thread(broker.start)
        await w.outside.bus.connected()
        # Its info may come before all of its connections are up, where it waited to be told; this does not.
        await until(lambda: any(status.online for status in w.outside.statuses[announced:]), 20)
        await is_answered(w, "c.after")
        assert w.outside.statuses[-1].online


async def test_a_node_that_comes_back_has_its_fragments_and_a_new_boot_id(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path, "n1") as w:
        await is_answered(w, "c.before")
        asked = len(w.repository.requests)
        await w.stop_node("n1")
        await until(lambda: not w.outside.statuses[-1].online, 20)
        await w.start_node("n1")
        await is_answered(w, "c.after")
        assert len(w.repository.requests) == asked
        await until(lambda: w.outside.statuses[-1].online, 20)
        assert w.outside.statuses[-1].boot != w.outside.statuses[0].boot


async def test_a_next_node_that_is_gone_costs_this_one_nothing(mosquitto_url: str, tmp_path: Path) -> None:
    """The broker has nobody to hand the tensors to; that a task stalls is for the gateway to see."""
    async with world(mosquitto_url, tmp_path, "n1") as w:
        (route,) = routes(w.application.variant("layer"), ["n1", "dead", "n1"])
        for number in range(20):
            await w.outside.send(route, IMAGES, task=f"c.{number}")
        await is_answered(w, "c.good")
        await until(lambda: w.vitals("n1").executed == 21, 20)


async def test_a_network_that_might_never_end_is_refused_when_it_is_loaded(
    mosquitto_url: str, tmp_path: Path
) -> None:
    loop = helper.make_node("Loop", ["turns", "", "row"], ["logits"], body=doubling())
    application = build_odd_application(tmp_path / "models", [*flat(), constant("turns", 2**62), loop])
    async with world(mosquitto_url, tmp_path, "n1", application=application) as w:
        await w.outside.send(whole(w), IMAGES)
        await until(lambda: w.outside.failures, 20)
        (failure,) = w.outside.failures
        assert failure.kind == "fragment"
        assert "turns" in failure.reason
        assert w.info("n1").loaded == ()
