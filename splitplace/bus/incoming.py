"""Messages as handlers get them: validated, or raw with their MQTT 5 properties."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from paho.mqtt.client import MQTTMessage

from splitplace.messages.base import Message
from splitplace.messages.frames import FrameError, unpack
from splitplace.messages.topics import Topic

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Received(Generic[MessageT]):
    """A valid message: its topic's parameters agree with its fields."""

    parameters: Mapping[str, str]
    message: MessageT
    body: memoryview
    """Body of a binary frame; empty for JSON."""


@dataclass(frozen=True, slots=True)
class RequestProperties:
    """MQTT 5 properties that a sensor may set."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    user: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawReceived:
    """A message whose payload the handler decodes itself."""

    parameters: Mapping[str, str]
    payload: bytes
    properties: RequestProperties
    retained: bool = False
    """Whether the broker had kept it: it may be much older than the connection. Where the session is
    `live_only`, whether it was published with the retain flag."""
    arrived_ms: float = 0.0
    """When it was read from the connection, by the clock of `now_ms`."""
    since_ms: float = 0.0
    """When it may have come to the broker at the earliest, as far as one can tell: since then messages have
    always waited to be read."""
    redelivered: bool = False
    """Whether the broker sends it once more, because no acknowledgement reached it: MQTT's DUP flag."""


def parse(topic: Topic[MessageT], name: str, payload: bytes) -> Received[MessageT]:
    """Parse and validate a message against the topic on which it came.

    Args:
        topic: the table's entry.
        name: the topic it came on, without prefix.
        payload: JSON or a binary frame, as the entry says.

    Raises:
        FrameError: too big, a broken frame, or fields that contradict the topic.
        ValidationError: not a valid message of the topic's type.
    """
    parameters = topic.match(name)
    if parameters is None or len(payload) > topic.max_bytes:
        raise FrameError(f"{len(payload)} bytes on {name} (limit {topic.max_bytes})")
    body = memoryview(b"")
    if topic.encoding == "frame":
        content, body = unpack(topic.message, payload)
    elif topic.encoding == "word":
        content = topic.message.model_validate({topic.word: payload.decode(errors="replace")})
    else:
        content = topic.message.model_validate_json(payload)
    forged = [key for key, value in parameters.items() if getattr(content, key, value) != value]
    if forged:
        raise FrameError(f"{forged[0]} in the message is not the one in its topic {name}")
    return Received(parameters, content, body)


def request_properties(message: MQTTMessage) -> RequestProperties:
    """Return the MQTT 5 properties of a message; all unset for MQTT 3.1.1."""
    given = message.properties
    if given is None:
        return RequestProperties()
    return RequestProperties(
        response_topic=getattr(given, "ResponseTopic", None),
        correlation_data=getattr(given, "CorrelationData", None),
        content_type=getattr(given, "ContentType", None),
        user=dict(getattr(given, "UserProperty", ())),
    )
