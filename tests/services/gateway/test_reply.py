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
        "",
    ],
)
def test_any_other_response_topic_is_not_used(wanted: str) -> None:
    assert response_topic(wanted) is None
