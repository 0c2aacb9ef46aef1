"""Where answers go: never where the gateway's word would count as somebody else's."""

import pytest

from splitplace.bus.connection import RawReceived, RequestProperties
from splitplace.messages.task import Answer
from splitplace.services.gateway.journal import ReplyTo
from splitplace.services.gateway.reply import encoded, reply_to
from tests.services.gateway.stimuli import TRACEPARENT

PREFIX = "splitplace/v1"
ANSWER = Answer(task="1", client="camera", application=None, status="failed", reason="because")


def response_topic(wanted: str) -> str | None:
    raw = RawReceived({}, b"", RequestProperties(response_topic=wanted))
    return reply_to(raw, PREFIX, "camera").response_topic


@pytest.mark.parametrize(
    "wanted", ["home/answers", "splitplace/v2/anything", f"{PREFIX}/answer/camera/7", "splitplace/v11"]
)
def test_a_response_topic_outside_our_tree_or_among_the_own_answers_is_used(wanted: str) -> None:
    assert response_topic(wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        f"{PREFIX}/node/n1/status",
        f"{PREFIX}/job/camera.7/result",
        f"{PREFIX}/answer/door/7",
        f"{PREFIX}/answer/camera",
        PREFIX,
        f"{PREFIX}/answer/camera/+",
        "home/#",
        "home/+/answers",
        "$SYS/broker",
        "home/\0",
        "home/\x1b]0;",
        "home/\x85",
        "home/\uffff",
        "",
        "a/" * 250 + "b",
        "a/" * 10 + "b",
        "a" * 257,
        "ü" * 129,
    ],
)
def test_any_other_response_topic_is_not_used_and_its_sender_is_told(wanted: str) -> None:
    raw = RawReceived({}, b"", RequestProperties(response_topic=wanted))
    reply = reply_to(raw, PREFIX, "camera")
    assert reply.response_topic is None
    assert "response topic was not used" in reply.warnings[0]


def test_a_response_topic_at_the_bounds_is_used() -> None:
    for wanted in ("a/" * 9 + "b", "a" * 256, "heim/küche"):
        assert response_topic(wanted) == wanted


def with_trace(parent: str) -> ReplyTo:
    return reply_to(RawReceived({}, b"", RequestProperties(user={"traceparent": parent})), PREFIX, "camera")


def test_the_trace_of_a_sensor_comes_back_with_the_answer() -> None:
    reply = with_trace(TRACEPARENT)
    assert (reply.traceparent, reply.warnings) == (TRACEPARENT, ())
    _, properties = encoded(ANSWER, reply)
    assert getattr(properties, "UserProperty", None) == [("traceparent", TRACEPARENT)]


def test_who_sends_no_trace_gets_no_properties() -> None:
    assert encoded(ANSWER, reply_to(RawReceived({}, b"", RequestProperties()), PREFIX, "camera"))[1] is None


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00",
        f"{TRACEPARENT}-00",
        f"{TRACEPARENT}\n",
        f"ff{TRACEPARENT[2:]}",
        TRACEPARENT.upper(),
        TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16),
        "x" * 60_000,
    ],
)
def test_a_trace_that_is_none_is_not_used_and_its_sender_is_told(parent: str) -> None:
    reply = with_trace(parent)
    assert reply.traceparent is None
    assert "traceparent was not used" in reply.warnings[0]
    assert len(reply.warnings[0]) < 200
