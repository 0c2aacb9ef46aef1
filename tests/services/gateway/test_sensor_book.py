"""Figures of sensors: right, and bounded whatever names come."""

import pytest

from splitplace.messages.findings import AnyPrediction, Prediction
from splitplace.messages.names import OTHER_SENSORS, sensor_part
from splitplace.messages.task import Answer, AnswerStatus
from splitplace.services.gateway.admission import Quota
from splitplace.services.gateway.sensor_book import (
    FORGET_MS,
    MAX_APPLICATIONS,
    MAX_SENSORS,
    MOST_NEWS,
    QUIET_MS,
    SensorBook,
)
from tests.support.predictions import FOUND

SEVEN = Prediction(label="seven", index=7, confidence=0.9)


def answer(client: str = "camera", status: AnswerStatus = "answered", **changes: object) -> Answer:
    fields: dict[str, object] = {
        "task": "1",
        "client": client,
        "application": "digits",
        "status": status,
        "reason": "it is the quickest",
        "predictions": (SEVEN,) if status == "answered" else (),
        "response_ms": 40.0,
        "on_time": status == "answered",
    }
    return Answer.model_validate(fields | changes)


def quota(client: str) -> Quota:
    return Quota(len(client), 100, 0.5)


def told(book: SensorBook) -> dict[str, int]:
    """Finished tasks by key of the sensor, of everything that is news."""
    found: dict[str, int] = {}
    while news := list(book.news(quota)):
        found |= {metrics.sensor: metrics.finished for metrics, _ in news}
    return found


def test_a_sensor_is_told_with_its_last_answer_and_its_share_of_missed_deadlines() -> None:
    book = SensorBook()
    for end in (answer(), answer(on_time=False, response_ms=900.0), answer(status="expired")):
        book.count(end, 0.0, was_accepted=True)
    book.count(answer(status="refused", response_ms=None), 0.0, was_accepted=False)
    ((metrics, last),) = book.news(quota)
    assert (metrics.finished, metrics.answered, metrics.on_time, metrics.late) == (3, 2, 1, 1)
    assert (metrics.refused, metrics.expired, metrics.last_status) == (1, 1, "refused")
    assert metrics.late_ratio == pytest.approx(2 / 3)
    assert last is not None
    assert (last.label, last.status) == (None, "refused")
    assert list(book.news(quota)) == []


def test_an_application_keeps_its_last_answer_with_a_result_until_it_is_removed() -> None:
    book = SensorBook()
    book.count(answer(), 0.0, was_accepted=True)
    book.count(answer("other", status="expired"), 0.0, was_accepted=True)
    ((name, latest),) = book.application_news()
    assert (name, latest.label, latest.sensor) == ("digits", "seven", "camera")
    assert book.gone({"digits"}, 1.0) == ([], [])
    assert book.gone((), 1.0) == ([], ["digits"])


@pytest.mark.parametrize("name", ["küche", "AA:BB:CC", "~others", "a.b", "x" * 128, "é" * 64])
def test_any_name_of_a_sensor_makes_one_level_of_a_topic(name: str) -> None:
    book = SensorBook()
    book.count(answer(name), 0.0, was_accepted=True)
    ((metrics, _),) = book.news(quota)
    assert metrics.name == name
    assert metrics.sensor == sensor_part(name) != OTHER_SENSORS


def test_a_flood_of_names_counts_together_and_drives_nobody_out() -> None:
    book = SensorBook()
    book.count(answer(), 0.0, was_accepted=True)
    for number in range(5 * MAX_SENSORS):
        book.count(answer(f"flood-{number}", status="refused"), 2 * QUIET_MS + number, was_accepted=False)
    found = told(book)
    assert found["camera"] == 1
    assert len(found) <= MAX_SENSORS + 1
    assert OTHER_SENSORS in found


def test_a_new_sensor_with_an_accepted_task_takes_the_place_of_a_silent_stranger() -> None:
    book = SensorBook()
    book.count(answer(), 0.0, was_accepted=True)
    for number in range(MAX_SENSORS - 1):
        book.count(answer(f"flood-{number}", status="invalid"), 1.0 + number, was_accepted=False)
    told(book)
    book.count(answer("kitchen"), 2 * QUIET_MS, was_accepted=True)
    assert set(told(book)) == {"kitchen"}
    assert book.gone({"digits"}, 2 * QUIET_MS)[0] == ["flood-0"]


def test_who_was_silent_for_a_day_is_forgotten() -> None:
    book = SensorBook()
    book.count(answer(), 0.0, was_accepted=True)
    assert book.gone({"digits"}, FORGET_MS + 1) == (["camera"], [])
    assert told(book) == {}


def test_one_round_tells_of_a_bounded_number_of_sensors() -> None:
    book = SensorBook()
    for number in range(MOST_NEWS + 1):
        book.count(answer(f"s{number}"), 0.0, was_accepted=True)
    assert [len(list(book.news(quota))) for _ in range(3)] == [MOST_NEWS, 1, 0]


def test_applications_are_bounded() -> None:
    book = SensorBook()
    for number in range(MAX_APPLICATIONS + 9):
        book.count(answer(application=f"a{number}"), 0.0, was_accepted=True)
    assert len(list(book.application_news())) == MAX_APPLICATIONS


@pytest.mark.parametrize("found", FOUND, ids=lambda found: str(found.kind))
def test_an_answer_of_any_kind_is_told_by_its_surest_label(found: AnyPrediction) -> None:
    book = SensorBook()
    book.count(answer(predictions=(found,)), 0.0, was_accepted=True)
    ((_, last),) = book.news(quota)
    assert last is not None
    labels = {"sequence": "AB 12", "embedding": None, "tensors": None}
    assert last.label == labels.get(found.kind, "cat")


def test_a_sensor_is_told_with_its_quota_while_it_has_unfinished_tasks_and_once_more_after() -> None:
    book = SensorBook()
    book.count(answer(), 0.0, was_accepted=True)
    ((metrics, _),) = book.news(quota)
    assert (metrics.in_flight, metrics.quota, metrics.quota_ratio) == (6, 100, 0.5)
    told_in_rounds = []
    for holders in ((), ("camera", "stranger"), ("camera",), (), ()):
        book.hold(holders)
        told_in_rounds.append(list(told(book)))
    assert told_in_rounds == [[], ["camera"], ["camera"], ["camera"], []]


def test_sensors_that_count_together_have_no_quota() -> None:
    book = SensorBook()
    for number in range(MAX_SENSORS + 1):
        book.count(answer(f"s{number}"), 0.0, was_accepted=True)
    found = {metrics.sensor: metrics for _ in range(MAX_SENSORS) for metrics, _ in book.news(quota)}
    assert found[OTHER_SENSORS].quota is None
