"""What becomes of tasks that the gateway does not simply take, on a real broker."""

import asyncio
import contextlib
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitplace.commands.processes import broker
from splitplace.commands.processes.broker import Broker, StartedKind
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.task import Answer
from splitplace.services.gateway import answers, catalogue, recent_refusals
from splitplace.services.gateway.instructions import Finish
from splitplace.services.gateway.journal import Entry, Journal, ReplyTo
from splitplace.services.gateway.reply import RETAINED
from splitplace.services.gateway.settings import GatewaySettings
from tests.services.gateway.live_gateway import (
    APPLICATION,
    IMAGES,
    PREFIX,
    Sensor,
    StandIn,
    all_others,
    gateway_at,
    packed,
    system,
)
from tests.services.gateway.stimuli import entry
from tests.support.brokers import running_broker
from tests.support.waiting import PATIENCE_S, until


async def publish_catalogue(stand_in: StandIn) -> None:
    await stand_in.bus.publish(topics.APPLICATION, APPLICATION, application=APPLICATION.name)


async def clear_catalogue(sensor: Sensor) -> None:
    await sensor.client.publish(f"{PREFIX}/application/{APPLICATION.name}", b"", qos=1, retain=True)


async def test_a_valid_task_waits_for_the_catalogue(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "PATIENCE_MS", 1e6)
    async with system(settings, has_catalogue=False) as (stand_in, sensor):
        await sensor.ask(packed(deadline_ms=60_000.0))
        await sensor.ask(b"noise", "task/digits/camera/2")
        assert (await sensor.answer())["task"] == "2"
        await publish_catalogue(stand_in)
        assert (await sensor.answer())["status"] == "answered"


async def status_until(sensor: Sensor, status: str) -> dict[str, Any]:
    """Send task after task until one ends so: the gateway hears of its catalogue on another connection."""
    async with asyncio.timeout(PATIENCE_S):
        for number in itertools.count():
            await sensor.ask(packed(), f"task/digits/camera/{status}-{number}")
            answer = await sensor.answer()
            if answer["status"] == status:
                return answer
    raise AssertionError


async def test_an_application_that_is_removed_takes_no_tasks_and_ends_those_under_way(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "HEALED_MS", 0.0)
    async with system(settings.model_copy(update={"stall_ms": 1e6})) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=60_000.0), "task/digits/camera/before")
        await until(lambda: len(stand_in.frames) == len(IMAGES))
        (accepted,) = stand_in.accepted
        stand_in.silent = False
        await clear_catalogue(sensor)
        refusal = await status_until(sensor, "invalid")
        assert "no application 'digits'" in refusal["reason"]
        await stand_in.send_result(accepted.task, accepted.attempt)
        ended = await sensor.answer()
        assert (ended["task"], ended["status"]) == ("before", "answered")
        assert ended["predictions"][0]["label"] == APPLICATION.labels[0]
        await publish_catalogue(stand_in)
        await status_until(sensor, "answered")


async def test_without_a_catalogue_no_task_is_invalid(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "PATIENCE_MS", 50.0)
    monkeypatch.setattr(recent_refusals, "COPIES_WITHIN_MS", 0.0)
    async with system(settings, has_catalogue=False) as (stand_in, sensor):
        for _ in range(3):
            await sensor.ask(packed())
            refusal = await sensor.answer()
            assert refusal["status"] == "refused"
            assert "not ready" in refusal["reason"]
            assert "try again" in refusal["reason"]
        await publish_catalogue(stand_in)
        await until(lambda: stand_in.applications)
        await sensor.ask(packed())
        assert (await sensor.answer())["status"] == "answered"


async def test_a_copy_of_a_task_that_was_just_refused_is_refused_alike(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_refusals, "COPIES_WITHIN_MS", 60_000.0)
    async with system(settings.model_copy(update={"max_tasks": 1})) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=60_000.0), "task/digits/camera/first")
        await until(lambda: stand_in.accepted)
        await sensor.ask(packed())
        refusal = await sensor.answer()
        assert refusal["status"] == "refused"
        (accepted,) = stand_in.accepted
        await stand_in.send_result(accepted.task, accepted.attempt)
        assert (await sensor.answer())["task"] == "first"
        await sensor.ask(packed())  # there is room now
        assert await sensor.answer() == refusal
        stand_in.silent = False
        await sensor.ask(packed(), "task/digits/camera/2")
        assert (await sensor.answer())["status"] == "answered"


async def test_a_known_task_gets_its_stored_answer_before_anybody_looks_at_the_catalogue(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed())
        first = await sensor.answer()
        await clear_catalogue(sensor)
    monkeypatch.setattr(catalogue, "PATIENCE_MS", 0.0)
    async with system(settings, has_catalogue=False) as (_, sensor):
        await sensor.ask(packed())
        assert await sensor.answer() == {**first, "repeated": True}


async def test_a_task_that_was_answered_is_never_told_of_an_overload(settings: GatewaySettings) -> None:
    async with system(settings.model_copy(update={"max_tasks": 1})) as (stand_in, sensor):
        await sensor.ask(packed())
        first = await sensor.answer()
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=60_000.0), "task/digits/camera/2")
        await until(lambda: len(stand_in.accepted) == 2)
        await sensor.ask(packed())
        assert await sensor.answer() == {**first, "repeated": True}


async def test_a_response_topic_of_many_levels_costs_its_sender_a_warning_and_others_nothing(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), ResponseTopic="a/" * 250 + "b")
        message = await sensor.message()
        assert message.topic.value == f"{PREFIX}/answer/camera/1"
        assert b"501 bytes" in bytes(message.payload or b"")
        await sensor.ask(packed(), "task/digits/camera/2")
        answer = await sensor.answer()
        assert (answer["status"], answer["warnings"]) == ("answered", [])


@pytest.fixture
def home_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker on which nobody may publish outside SplitPlace's topics."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite splitplace/#\n")
    rules.chmod(0o644)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(broker, "MOSQUITTO_SETTINGS", {**broker.MOSQUITTO_SETTINGS, "acl_file": str(rules)})
    with running_broker("mosquitto") as running:
        yield running


async def test_where_the_broker_refuses_the_response_topic_the_answer_goes_to_the_answer_topic(
    home_is_closed: Broker, settings: GatewaySettings
) -> None:
    closed = settings.model_copy(update={"broker": home_is_closed.url})
    async with system(closed) as (_, sensor):
        await sensor.ask(packed(), ResponseTopic="home/answers")
        answer = await sensor.answer()
        assert (answer["status"], len(answer["warnings"])) == ("answered", 1)
        assert "does not take answers" in answer["warnings"][0]
        await until(lambda: all_delivered(settings))


async def test_a_result_that_cannot_be_expressed_costs_its_own_task_only(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = answers.answer

    def fail_for_the_first(finish: Finish, entry: Entry, application: Application | None) -> Answer:
        made = build(finish, entry, application)
        return Answer.model_validate(made.model_dump() | ({"attempt": 0} if entry.task == "1" else {}))

    monkeypatch.setattr(answers, "answer", fail_for_the_first)
    async with system(settings) as (_, sensor):
        for task, status in (("1", "failed"), ("2", "answered")):
            await sensor.ask(packed(), f"task/digits/camera/{task}")
            assert (await sensor.answer())["status"] == status


async def test_a_task_id_with_other_inputs_is_run_under_another_key(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.ask(packed())
        await sensor.answer()
        await sensor.ask(packed(inputs=bytes(IMAGES.nbytes)))
        assert (await sensor.answer())["repeated"] is False
        first, second = stand_in.accepted
        assert first.task != second.task
        assert np.array_equal(stand_in.frames[-1][1], np.zeros_like(IMAGES[:1]))


async def test_a_task_id_with_other_inputs_is_refused_while_the_first_is_unfinished(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=60_000.0))
        await until(lambda: stand_in.accepted)
        await sensor.ask(packed(inputs=bytes(IMAGES.nbytes)))
        refusal = await sensor.answer()
        assert refusal["status"] == "refused"
        assert "other inputs" in refusal["reason"]


async def test_a_task_id_really_runs_again_when_its_answer_is_no_longer_kept(
    settings: GatewaySettings,
) -> None:
    async with system(settings.model_copy(update={"keep_answers_s": 0.0})) as (stand_in, sensor):
        for count in (1, 2, 3):
            await sensor.ask(packed())
            assert (await sensor.answer())["repeated"] is False
            assert len({task.task for task in stand_in.accepted}) == count
            await until(lambda: all_delivered(settings))


def all_delivered(settings: GatewaySettings) -> bool:
    with contextlib.closing(sqlite3.connect(settings.journal_file)) as database:
        (left,) = database.execute("SELECT count(*) FROM tasks WHERE delivered = 0").fetchone()
    return bool(left == 0)


async def test_a_task_that_comes_while_the_gateway_is_away_is_answered_by_the_next_process(
    settings: GatewaySettings,
) -> None:
    """The broker keeps it under the client id whose secret the state folder keeps."""
    async with all_others(settings) as (stand_in, sensor):
        async with gateway_at(settings):
            await until(lambda: stand_in.gateways)
        secret = settings.paths.gateway_client_id.read_text()
        await sensor.ask(packed())
        async with gateway_at(settings):
            assert (await sensor.answer())["status"] == "answered"
    assert settings.paths.gateway_client_id.read_text() == secret


async def test_a_task_that_the_broker_had_kept_is_never_run(
    settings: GatewaySettings, broker_kind: StartedKind
) -> None:
    """The embedded broker sends it at each connection: it is refused once. Mosquitto keeps it to itself."""
    async with all_others(settings) as (stand_in, sensor):
        await sensor.client.publish(f"{PREFIX}/task/digits/camera/1", packed(), qos=1, retain=True)
        async with gateway_at(settings):
            if broker_kind == "embedded":
                refusal = await sensor.answer()
                assert refusal["status"] == "invalid"
                assert "retain flag" in refusal["reason"]
            else:
                await until(lambda: stand_in.gateways)
            await sensor.ask(packed(), "task/digits/camera/2")
            assert (await sensor.answer())["task"] == "2"
            assert len({task.task for task in stand_in.accepted}) == 1


async def test_a_live_task_with_the_retain_flag_runs_once_and_hears_nothing_else_later(
    settings: GatewaySettings, broker_kind: StartedKind
) -> None:
    async with all_others(settings) as (stand_in, sensor):
        async with gateway_at(settings):
            await until(lambda: stand_in.gateways)
            await sensor.client.publish(f"{PREFIX}/task/digits/camera/1", packed(), qos=1, retain=True)
            answer = await sensor.answer()
            assert answer["status"] == "answered"
            assert answer["warnings"] == ([RETAINED] if broker_kind == "mosquitto" else [])
            await until(lambda: all_delivered(settings))
        async with gateway_at(settings):
            await until(lambda: len(set(stand_in.gateways)) == 2)
            await sensor.ask(packed(), "task/digits/camera/2")
            answer = await sensor.answer()
            assert (answer["task"], answer["status"], answer["warnings"]) == ("2", "answered", [])
            assert len({task.task for task in stand_in.accepted}) == 2


@pytest.mark.mosquitto
@pytest.mark.parametrize("broker_kind", ["mosquitto"])
async def test_a_retained_task_from_while_the_gateway_was_away_runs_and_its_repetition_is_answered_again(
    settings: GatewaySettings,
) -> None:
    async with all_others(settings) as (stand_in, sensor):
        async with gateway_at(settings):
            await until(lambda: stand_in.gateways)
        await sensor.client.publish(f"{PREFIX}/task/digits/camera/1", packed(), qos=1, retain=True)
        async with gateway_at(settings):
            answer = await sensor.answer()
            assert (answer["status"], answer["warnings"]) == ("answered", [RETAINED])
            await until(lambda: all_delivered(settings))
            await sensor.ask(packed())
            answer = await sensor.answer()
            assert (answer["repeated"], answer["warnings"]) == (True, [])


@pytest.mark.mosquitto
@pytest.mark.parametrize("broker_kind", ["mosquitto"])
async def test_clearing_a_retained_task_is_no_task(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.client.publish(f"{PREFIX}/task/digits/camera/1", b"", qos=1, retain=True)
        await sensor.ask(packed(), "task/digits/camera/2")
        assert (await sensor.answer())["task"] == "2"


async def test_a_task_from_before_the_clock_was_set_is_answered(settings: GatewaySettings) -> None:
    async with Journal(settings.journal_file, durable=False) as journal:
        await journal.accept(entry_of(1, accepted_unix_s=0.0))
        await journal.accept(entry_of(2, accepted_unix_s=1e12))
    async with all_others(settings) as (_, sensor), gateway_at(settings):
        statuses = {answer["task"]: answer["status"] for answer in [await sensor.answer() for _ in range(2)]}
    assert statuses["1"] == "expired"
    assert statuses["2"] in {"answered", "expired"}


def entry_of(number: int, accepted_unix_s: float) -> Entry:
    made = entry(number)
    return replace(made, accepted_unix_s=accepted_unix_s, inputs=IMAGES, reply=ReplyTo())


async def test_a_damaged_row_is_answered_once_and_the_others_go_on(settings: GatewaySettings) -> None:
    async with Journal(settings.journal_file, durable=False) as journal:
        for number in (1, 2):
            await journal.accept(replace(entry_of(number, time.time()), deadline_ms=60_000.0))
    with contextlib.closing(sqlite3.connect(settings.journal_file)) as database:
        database.execute("UPDATE tasks SET inputs = x'00' WHERE task = '1'")
        database.commit()
    async with all_others(settings) as (_, sensor), gateway_at(settings):
        heard = {answer["task"]: answer for answer in [await sensor.answer() for _ in range(2)]}
        assert heard["2"]["status"] == "answered"
        assert heard["1"]["status"] == "failed"
        assert "damaged" in heard["1"]["reason"]
        await until(lambda: all_delivered(settings))


@pytest.mark.parametrize(
    ("client", "task"),
    [
        ("AA:BB:CC", "2026-11-28T11:12:13Z"),
        ("front door", "küche"),
        ("cam.front", "1.2"),
        ("厨房", "👩‍🍳"),
        ("-", "$"),
    ],
)
async def test_a_sensor_of_any_name_is_answered_on_the_levels_that_it_used(
    settings: GatewaySettings, client: str, task: str
) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.client.subscribe(f"{PREFIX}/answer/#", qos=1)
        await sensor.ask(packed(), f"task/digits/{client}/{task}")
        message = await sensor.message()
        assert message.topic.value == f"{PREFIX}/answer/{client}/{task}"
        answer = json.loads(bytes(message.payload or b""))
        assert (answer["status"], answer["client"], answer["task"]) == ("answered", client, task)
        assert all(accepted.task.isascii() for accepted in stand_in.accepted)
        await sensor.ask(packed(), f"task/digits/{client}/{task}")
        assert (await sensor.answer())["repeated"]


@pytest.mark.parametrize("levels", ["camera/1/", "camera/1/2", "camera/1//3/4"])
async def test_a_topic_with_more_levels_hears_so_on_the_same_levels(
    settings: GatewaySettings, levels: str
) -> None:
    async with system(settings) as (_, sensor):
        await sensor.client.subscribe(f"{PREFIX}/answer/#", qos=1)
        await sensor.ask(packed(), f"task/digits/{levels}")
        message = await sensor.message()
        assert message.topic.value == f"{PREFIX}/answer/{levels}"
        assert json.loads(bytes(message.payload or b""))["status"] == "invalid"


async def test_an_empty_level_is_a_name_that_was_not_given(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.client.subscribe(f"{PREFIX}/answer/#", qos=1)
        for levels, client in (("camera/", "camera"), ("", "anonymous"), ("/7", "anonymous")):
            await sensor.ask(packed(), f"task/digits/{levels}")
            answer = await sensor.answer()
            assert (answer["status"], answer["client"]) == ("answered", client)


async def test_a_name_that_is_no_level_is_refused_with_an_answer(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.client.subscribe(f"{PREFIX}/answer/#", qos=1)
        await sensor.ask(packed(client="a/b", task="7"), "task/digits")
        message = await sensor.message()
        assert message.topic.value == f"{PREFIX}/answer/anonymous/7"
        assert b"client: it holds +, # or /" in bytes(message.payload or b"")


async def test_what_was_done_to_a_task_is_told_once_more_with_the_stored_answer(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (_, sensor):
        for _ in range(2):
            await sensor.ask(packed(battery=3.3))
            assert (await sensor.answer())["warnings"] == ["fields that are not known were ignored: battery"]
