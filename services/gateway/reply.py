"""Address and format of an answer. Pure."""

import msgpack
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.connection import RawReceived
from splitplace.messages import topics
from splitplace.messages.task import Answer
from splitplace.services.gateway.journal import ReplyTo


def reply_to(raw: RawReceived, prefix: str, client: str) -> ReplyTo:
    """Read where a sender wants its answer. A topic that is not allowed is replaced by its answer topic."""
    wanted = raw.properties.response_topic
    declared = (raw.properties.content_type or "").lower()
    return ReplyTo(
        response_topic=wanted if wanted and _is_allowed(wanted, prefix, client) else None,
        correlation_data=raw.properties.correlation_data,
        packed="msgpack" in declared,
    )


def _is_allowed(topic: str, prefix: str, client: str) -> bool:
    """Whether the gateway may publish there. Below our prefix a sensor could forge messages that way."""
    if any(sign in topic for sign in "+#$\0"):
        return False
    if not f"{topic}/".startswith(f"{prefix}/"):
        return True
    found = topics.ANSWER.match(topic.removeprefix(f"{prefix}/"))
    return found is not None and found["client"] == client


def encoded(answer: Answer, reply: ReplyTo) -> tuple[bytes, Properties | None]:
    """Encode an answer. Only sensors that asked by MQTT 5 get properties.

    The embedded broker disconnects MQTT 3.1.1 subscribers that are sent properties.
    """
    payload = msgpack.packb(answer.model_dump()) if reply.packed else answer.model_dump_json().encode()
    if reply.correlation_data is None and not reply.packed:
        return payload, None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if reply.correlation_data is not None:
        properties.CorrelationData = reply.correlation_data
    properties.ContentType = "application/msgpack" if reply.packed else "application/json"
    return payload, properties
