"""Address and format of an answer. Pure."""

import re
from collections.abc import Mapping

import msgpack
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.connection import RawReceived
from splitplace.messages import topics
from splitplace.messages.limits import MAX_RESPONSE_TOPIC_BYTES, MAX_RESPONSE_TOPIC_LEVELS
from splitplace.messages.names import topic_trouble
from splitplace.messages.task import Answer
from splitplace.messages.trace_context import TRACEPARENT, is_traceparent
from splitplace.services.gateway.journal import ReplyTo

NOT_USED = "the response topic was not used"
NO_PARENT = (
    "the traceparent was not used: it is not 00-TRACE-SPAN-FLAGS,"
    " with 32, 16 and 2 lower-case hexadecimal digits"
)
RETAINED = (
    "published with the retain flag; publish without it: the broker keeps such a task for whoever comes later"
)
_WILD = re.compile(r"[+#$]")


def reply_to(raw: RawReceived, prefix: str, client: str) -> ReplyTo:
    """Read where a sender wants its answer.

    A topic that is not allowed is replaced by the sender's answer topic, with a warning.
    """
    wanted, parent = raw.properties.response_topic, raw.properties.user.get(TRACEPARENT)
    if wanted is None and (more := raw.parameters.get("more")) is not None:
        return ReplyTo(response_topic=_same_levels(prefix, raw.parameters, more))
    is_parent = parent is not None and is_traceparent(parent)
    declared = (raw.properties.content_type or "").lower()
    trouble = _trouble(wanted, prefix, client) if wanted is not None else ""
    return ReplyTo(
        response_topic=wanted if not trouble else None,
        correlation_data=raw.properties.correlation_data,
        packed="msgpack" in declared,
        warnings=(
            *((f"{NOT_USED}: {trouble}",) if trouble else ()),
            *((RETAINED,) if raw.retained else ()),
            *((NO_PARENT,) if parent is not None and not is_parent else ()),
        ),
        traceparent=parent if is_parent else None,
    )


def _same_levels(prefix: str, levels: Mapping[str, str], more: str) -> str | None:
    """Return the answer topic with the levels that a sensor used beyond those of a task; None if too long."""
    topic = f"{prefix}/{topics.ANSWER.at(client=levels['client'], task=levels['task'])}/{more}"
    too_long = len(topic.encode()) > MAX_RESPONSE_TOPIC_BYTES or topic.count("/") >= MAX_RESPONSE_TOPIC_LEVELS
    return None if too_long else topic


def _trouble(topic: str, prefix: str, client: str) -> str:
    """Say why the gateway does not publish there; empty if it does.

    A publication that costs the connection would hold up all other answers. Below our prefix a sensor could
    forge messages.
    """
    if not topic:
        return "it is empty"
    size, levels = len(topic.encode(errors="replace")), topic.count("/") + 1
    if size > MAX_RESPONSE_TOPIC_BYTES:
        return f"it has {size} bytes; at most {MAX_RESPONSE_TOPIC_BYTES}"
    if levels > MAX_RESPONSE_TOPIC_LEVELS:
        return f"it has {levels} levels; at most {MAX_RESPONSE_TOPIC_LEVELS}"
    if _WILD.search(topic) or topic_trouble(topic):
        return "it holds +, #, $ or control characters"
    if not f"{topic}/".startswith(f"{prefix}/"):
        return ""
    found = topics.ANSWER.match(topic.removeprefix(f"{prefix}/"))
    own = found is not None and found["client"] == client
    return "" if own else f"below {prefix} it may only be answer/{client}/<task>"


def repeated(answer: Answer, reply: ReplyTo) -> Answer:
    """Return a stored answer for a task that was sent again. Warnings of how it was sent are this one's."""
    kept = [warning for warning in answer.warnings if not warning.startswith((NOT_USED, RETAINED, NO_PARENT))]
    return answer.model_copy(update={"repeated": True, "warnings": (*reply.warnings, *kept)})


def encoded(answer: Answer, reply: ReplyTo) -> tuple[bytes, Properties | None]:
    """Encode an answer. Only sensors that asked by MQTT 5 get properties.

    The embedded broker disconnects MQTT 3.1.1 subscribers that are sent properties.
    """
    payload = msgpack.packb(answer.model_dump()) if reply.packed else answer.model_dump_json().encode()
    if reply.correlation_data is None and reply.traceparent is None and not reply.packed:
        return payload, None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if reply.correlation_data is not None:
        properties.CorrelationData = reply.correlation_data
    if reply.traceparent is not None:
        properties.UserProperty = (TRACEPARENT, reply.traceparent)
    properties.ContentType = "application/msgpack" if reply.packed else "application/json"
    return payload, properties
