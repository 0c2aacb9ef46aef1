"""The gateway on a real broker, with a stand-in for the services behind it."""

from pathlib import Path

import msgpack
import numpy as np
import pytest

from splitplace.commands.processes.broker import Broker
from splitplace.messages import topics
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import Answer, ClassScore, StageReport
from splitplace.services.gateway import recent_refusals
from splitplace.services.gateway.journal import Journal, JournalError
from splitplace.services.gateway.settings import GatewaySettings
from tests.services.gateway.live_gateway import (
    APPLICATION,
    IMAGES,
    PREFIX,
    StandIn,
    all_others,
    assert_next_answer_is_that_of_the_next_task,
    gateway_at,
    packed,
    sensor_at,
    system,
)
from tests.services.gateway.stimuli import TRACEPARENT
from tests.support.observer import Observer
from tests.support.waiting import until


async def test_a_task_is_run_in_micro_batches_and_answered(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.ask(packed())
        answer = await sensor.answer()
        assert answer["status"] == "answered"
        assert [found["label"] for found in answer["predictions"]] == ["zero", "zero"]
        assert (answer["decision"], answer["nodes"], answer["reason"]) == ("layer", ["n1", "n2"], "it fits")
        assert 0 < answer["response_ms"] < answer["deadline_ms"]
        assert answer["on_time"] is True
        inputs = [array for header, array in stand_in.frames]
        assert np.array_equal(np.concatenate(inputs), IMAGES)
        route = stand_in.frames[0][0].route
        assert route is not None
        assert (route.node, route.next[0].node, route.next[0].next) == ("n1", "n2", ())
        await until(lambda: stand_in.finished)
        (finished,) = stand_in.finished
        assert (finished.accuracy, finished.variant_accuracy) == (0.5, 0.9)


async def test_an_answer_goes_to_the_response_topic_with_its_correlation_data(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (_, _unused), sensor_at(settings, "home/answers") as sensor:
        await sensor.ask(packed(), ResponseTopic="home/answers", CorrelationData=b"42")
        message = await sensor.message()
        correlation_data = getattr(message.properties, "CorrelationData", None)
        assert (message.topic.value, correlation_data) == ("home/answers", b"42")


async def test_the_trace_of_a_sensor_comes_back_with_its_answer_and_with_the_end_of_the_task(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.ask(packed(), UserProperty=("traceparent", TRACEPARENT))
        message = await sensor.message()
        assert getattr(message.properties, "UserProperty", None) == [("traceparent", TRACEPARENT)]
        await until(lambda: stand_in.finished)
        assert stand_in.finished[0].traceparent == TRACEPARENT


async def test_who_declares_msgpack_is_answered_in_msgpack(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), ContentType="application/msgpack")
        payload = (await sensor.message()).payload
        assert isinstance(payload, bytes)
        assert msgpack.unpackb(payload)["status"] == "answered"


async def test_a_response_topic_cannot_forge_a_message_of_ours(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), ResponseTopic=f"{PREFIX}/node/n1/status")
        assert (await sensor.message()).topic.value == f"{PREFIX}/answer/camera/1"


async def test_a_repeated_task_id_gets_its_old_answer_and_is_not_run_again(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.ask(packed())
        first = await sensor.answer()
        await sensor.ask(packed())
        second = await sensor.answer()
        assert second == {**first, "repeated": True}
        assert len(stand_in.accepted) == 1


async def test_bad_input_is_told_so_and_the_next_good_task_is_answered(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(b"\xff\x00 noise")
        refusal = await sensor.answer()
        assert (refusal["status"], refusal["task"]) == ("invalid", "1")
        assert "neither a JSON object" in refusal["reason"]
        await sensor.ask(packed(), "task/digits/camera/2")
        assert (await sensor.answer())["status"] == "answered"


async def test_an_unknown_application_is_refused_once_the_catalogue_is_there(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), "task/cats/camera/1")
        assert "digits" in (await sensor.answer())["reason"]


async def test_too_many_unfinished_tasks_are_refused_as_overload(settings: GatewaySettings) -> None:
    limited = settings.model_copy(update={"max_tasks": 1})
    async with system(limited) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=400.0))
        await until(lambda: stand_in.accepted)
        await sensor.ask(packed(), "task/digits/camera/2")
        refusal = await sensor.answer()
        assert (refusal["task"], refusal["status"]) == ("2", "refused")
        assert "overloaded" in refusal["reason"]
        assert (await sensor.answer())["status"] == "expired"


async def test_a_placement_that_does_not_fit_costs_an_attempt_and_not_the_gateway(
    settings: GatewaySettings,
) -> None:
    async with system(settings.model_copy(update={"stall_ms": 200.0})) as (stand_in, sensor):
        stand_in.run = PieceRun(chain="unknown", first=0, end=1)
        await sensor.ask(packed(deadline_ms=60_000.0))
        await until(lambda: stand_in.accepted)
        stand_in.run = None
        answer = await sensor.answer()
        assert (answer["status"], answer["attempt"]) == ("answered", 2)


async def test_a_task_nobody_finishes_expires_after_deadline_and_grace(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=250.0))
        answer = await sensor.answer()
        assert answer["status"] == "expired"
        assert 450.0 <= answer["response_ms"] < 1000.0
        await stand_in.send_result(stand_in.accepted[0].task, answer["attempt"])
        await assert_next_answer_is_that_of_the_next_task(stand_in, sensor)


async def test_a_result_that_contradicts_catalogue_or_placement_is_ignored(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=20_000.0))
        await until(lambda: stand_in.frames)
        key, attempt = stand_in.accepted[0].task, stand_in.accepted[0].attempt
        scores = (ClassScore(index=100_000, confidence=1.0), ClassScore(index=0, confidence=1.0))
        stages = (StageReport(stage="front", node="intruder", queue_ms=0.0, compute_ms=0.0),)
        forgeries: tuple[dict[str, object], ...] = (
            {"scores": scores},
            {"variant": "whole"},
            {"variant": "no-such-variant"},
            {"application": "letters"},
            {"stages": stages},
            {"coverage": 0.5},
        )
        for changes in forgeries:
            await stand_in.send_result(key, attempt, **changes)
        await stand_in.send_result(key, attempt)
        answer = await sensor.answer()
        assert (answer["status"], answer["decision"], answer["nodes"]) == ("answered", "layer", ["n1", "n2"])
        assert [found["label"] for found in answer["predictions"]] == ["zero", "zero"]


async def test_a_dead_node_costs_an_attempt_and_not_the_answer(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=5000.0))
        await until(lambda: stand_in.has_whole_input)
        stand_in.silent = False
        await stand_in.nodes("n2")
        await stand_in.nodes("n1", "n2", boot="1" * 16)
        answer = await sensor.answer()
        assert answer["status"] == "answered"
        assert answer["attempt"] >= 2


async def test_a_restarted_aggregator_costs_an_attempt_and_not_the_answer(settings: GatewaySettings) -> None:
    async with system(settings.model_copy(update={"stall_ms": 60_000.0})) as (stand_in, sensor):
        for boot in ("a" * 16, "b" * 16):
            stand_in.silent = boot[0] == "a"
            status = ServiceStatus(service="result-aggregator", boot=boot, online=True, software="1")
            await stand_in.bus.publish(topics.SERVICE_STATUS, status)
            if stand_in.silent:
                await sensor.ask(packed(deadline_ms=5000.0))
                await until(lambda: stand_in.has_whole_input)
        answer = await sensor.answer()
        assert (answer["status"], answer["attempt"]) == ("answered", 2)


async def test_a_restarted_gateway_finishes_what_it_had_accepted(settings: GatewaySettings) -> None:
    async with all_others(settings) as (stand_in, sensor):
        stand_in.silent = True
        async with gateway_at(settings):
            await until(lambda: stand_in.gateways)
            await sensor.ask(packed(deadline_ms=10_000.0))
            await until(lambda: stand_in.has_whole_input)
        stand_in.silent = False
        async with gateway_at(settings):
            answer = await sensor.answer()
            assert answer["status"] == "answered"
            assert answer["attempt"] >= 2, "a slow machine may have begun the second before the restart"
            await assert_next_answer_is_that_of_the_next_task(stand_in, sensor)


async def test_tasks_survive_a_broker_that_is_killed(broker: Broker, tmp_path: Path) -> None:
    settings = GatewaySettings(broker=broker.url, journal=tmp_path / "journal", stall_ms=300.0)
    stand_in = StandIn(settings)
    stand_in.silent = True
    async with stand_in.bus, gateway_at(settings):
        await until(lambda: stand_in.gateways)
        async with sensor_at(settings) as sensor:
            await sensor.ask(packed(deadline_ms=20_000.0))
            await until(lambda: stand_in.frames)
            broker.kill()
        stand_in.silent = False
        broker.start()
        async with sensor_at(settings) as sensor:
            assert (await sensor.answer())["status"] == "answered"


async def test_an_application_that_is_gone_after_a_break_takes_no_tasks(
    broker: Broker, tmp_path: Path
) -> None:
    settings = GatewaySettings(broker=broker.url, journal=tmp_path / "journal")
    stand_in = StandIn(settings)
    async with stand_in.bus, gateway_at(settings):
        await until(lambda: stand_in.gateways)
        cats = APPLICATION.model_copy(update={"name": "cats"})
        await stand_in.bus.publish(topics.APPLICATION, cats, application="cats")
        async with sensor_at(settings) as sensor:
            await sensor.ask(packed(deadline_ms=20_000.0), "task/cats/camera/first")
            assert (await sensor.answer())["status"] == "answered"
            stand_in.gateways.clear()
            broker.kill()
        broker.start()  # keeps nothing; only the other application is published again
        await until(lambda: stand_in.gateways)
        async with sensor_at(settings) as sensor:
            for number in range(1000):
                await sensor.ask(packed(deadline_ms=20_000.0), f"task/cats/camera/{number}")
                if (answer := await sensor.answer())["status"] == "invalid":
                    break
            assert answer["reason"] == "no application 'cats'; there is: digits"
            await assert_next_answer_is_that_of_the_next_task(stand_in, sensor)


async def test_while_the_journal_cannot_be_written_tasks_are_refused_and_later_answered(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise JournalError("database or disk is full")

    monkeypatch.setattr(recent_refusals, "COPIES_WITHIN_MS", 0.0)  # what comes now is tried again, no copy
    async with system(settings) as (_, sensor):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "accept", fail)
            await sensor.ask(packed())
            refusal = await sensor.answer()
            assert (refusal["status"], refusal["task"]) == ("refused", "1")
            assert "journal" in refusal["reason"]
        await sensor.ask(packed())
        assert (await sensor.answer())["status"] == "answered"


async def test_an_answer_waits_until_the_journal_can_be_written(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Journal.finish
    failures = 1

    async def fail_once(journal: Journal, key: str, answer: Answer) -> bool:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise JournalError("database or disk is full")
        return await finish(journal, key, answer)

    monkeypatch.setattr(Journal, "finish", fail_once)
    async with system(settings) as (_, sensor):
        await sensor.ask(packed())
        assert (await sensor.answer())["status"] == "answered"
        assert failures < 0


async def test_dashboards_hear_what_each_sensor_got(settings: GatewaySettings) -> None:
    observer = Observer(
        settings, topics.METRICS_SENSOR, topics.LATEST_OF_SENSOR, topics.LATEST_OF_APPLICATION
    )
    async with system(settings) as (_, sensor), observer.bus:
        await observer.bus.connected()
        await sensor.ask(packed(), "task/digits/front door/1")
        await sensor.answer()
        await sensor.ask(b"noise", "task/digits/front door/2")
        await sensor.answer()
        figures = await observer.until(topics.METRICS_SENSOR, lambda said: said.finished and said.invalid)
        assert (figures.sensor, figures.name) == ("front~20door", "front door")
        assert (figures.finished, figures.on_time, figures.invalid) == (1, 1, 1)
        latest = await observer.until(topics.LATEST_OF_APPLICATION)
        assert (latest.label, latest.confidence, latest.name) == ("zero", 0.9, "front door")
        await observer.until(topics.LATEST_OF_SENSOR, lambda said: said.status == "invalid")
