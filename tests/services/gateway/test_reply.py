"""Where answers go: never where the gateway's word would count as somebody else's."""

import pytest

from splitplace.bus.connection import RawReceived, RequestProperties
from splitplace.services.gateway.reply import reply_to

PREFIX = "splitplace/v1"


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
