"""The AsyncAPI 3 document of the whole system, made from the topic table: `splitplace asyncapi`."""

import inspect
import json
from typing import Any

from splitplace.commands.asyncapi.message_schemas import message_schemas
from splitplace.messages import limits
from splitplace.messages.base import PROTOCOL_VERSION
from splitplace.messages.topics import ANSWER, SENSOR, Topic, all_topics
from splitplace.messages.trace_context import TRACEPARENT

PREFIX = "splitplace/v1"
_MQTT_BINDING = "0.2.0"

PARAMETERS = {
    "application": "Name of an application: 1 to 64 letters, digits, `_`, `.` or `-`, no sign first.",
    "client": "Name of a sensor: what MQTT allows as a level, up to 128 bytes. `anonymous` without one.",
    "task": "Id of a task: below `task/` and `answer/` the sensor's own, like its name; below `job/` the key "
    "`<client>.<id>.<incarnation>`, where other signs than letters, digits, `-` and `_` stand as `~` and two "
    "hexadecimal digits for each byte.",
    "more": "Any number of further levels.",
    "node": "Name of an edge node.",
    "sensor": "Name of a sensor in the letters of a task key; `~others` stands for all beyond the bound.",
    "receiver": "Name of the edge node that the route names; `_aggregator` is the result aggregator's inbox.",
    "sender": "Name of the edge node that the trace names last; `_gateway` is the gateway.",
    "service": "`gateway`, `splitter`, `placer`, `resource-monitor` or `result-aggregator`.",
    "fragment": "SHA-256 of a file of a fragment, 64 hexadecimal digits.",
    "variant": "Name of a variant, that is a decision: `whole`, `layer`, `semantic`, ...",
    "reason": "Kind of refusal.",
}
"""Descriptions of the variable levels of topics."""

FRAME = (
    "4 bytes: length of the header, big endian. Header: a msgpack map (`x-frame-header`), at most "
    f"{limits.MAX_HEADER_BYTES} bytes. Zero bytes up to a multiple of 16. Then the body: at most "
    f"{limits.CHUNK_BYTES} bytes of the encoded tensor or of the file. A tensor is C-ordered and "
    "little endian, batch first; with codec `zstd` it is one zstd frame that states its content size."
)
"""Layout of a binary frame."""

TASK_CONTENT_TYPES = {
    "TaskJson": "application/json",
    "TaskMsgpack": "application/msgpack",
    "TaskPicture": "image/png",
}
"""The forms of a task. Without a content type, the first bytes decide."""

TASK_FORMS = {
    "TaskJson": "A task as JSON: `inputs` and `images` in base64. Line breaks, the alphabet for URLs, "
    "missing padding and data URLs are taken, numbers may be text, `image` may stand for `images`. Fields "
    "that are not known are ignored and named in the answer's `warnings`.",
    "TaskMsgpack": "A task as a msgpack map: `inputs` and `images` are raw bytes.",
    "TaskPicture": "A bare picture file (PNG, JPEG, WebP, GIF, BMP, TIFF), also in base64 or as a data URL: "
    "a task of one input. Names and deadline stand in the topic, in user properties, or are made up: the "
    "deadline is then the application's default.",
}


def document() -> dict[str, Any]:
    """Return the document as JSON values, the same for every call."""
    topics = list(all_topics())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SplitPlace",
            "version": str(PROTOCOL_VERSION),
            "description": (
                "Sensors publish tasks; networks split over edge nodes answer them before their deadline. "
                f"Addresses stand below the prefix `{PREFIX}`, which is configurable. Every message is "
                "refused where it has an unknown field. Durations travel, never points in time."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": _server()},
        "channels": {channel_id(topic): _channel(topic) for topic in topics},
        "operations": {name: operation for topic in topics for name, operation in _operations(topic)},
        "components": {
            "messages": {name: message for topic in topics for name, message in _messages(topic).items()},
            "parameters": {name: {"description": text} for name, text in PARAMETERS.items()},
            "schemas": message_schemas(),
        },
    }


def to_json() -> str:
    """Return the text of `docs/asyncapi.json`."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def channel_id(topic: Topic[Any]) -> str:
    """Return the key of a topic's channel: its levels, joined; variable ones by name."""
    return topic.pattern.replace("{", "").replace("}", "").replace("/", "-")


def _server() -> dict[str, Any]:
    return {
        "host": "{host}:{port}",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "description": "Any MQTT 5 broker. Sensors may speak 3.1.1 where the broker allows.",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "1883"}},
        "bindings": {"mqtt": {"maximumPacketSize": limits.MAX_PACKET_BYTES, "bindingVersion": _MQTT_BINDING}},
    }


def _channel(topic: Topic[Any]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": f"{PREFIX}/{topic.pattern}",
        "summary": topic.summary,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "x-max-bytes": topic.max_bytes,
    }
    if topic.parameters:
        channel["parameters"] = {
            name: {"$ref": f"#/components/parameters/{name}"} for name in topic.parameters
        }
    return channel


def _messages(topic: Topic[Any]) -> dict[str, dict[str, Any]]:
    """Return the messages that a topic may carry, by name. Only tasks have more than one."""
    kind = topic.message.__name__
    schema = {"$ref": f"#/components/schemas/{kind}"}
    summary = inspect.cleandoc(topic.message.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    if topic.encoding == "task":
        return {name: _task_form(name, schema) for name in TASK_FORMS}
    if topic.encoding == "frame":
        name = kind.removesuffix("Header") + "Frame"
        return {
            name: {
                "name": name,
                "summary": summary,
                "contentType": "application/octet-stream",
                "payload": _binary(FRAME),
                "x-frame-header": schema,
            }
        }
    if topic.encoding == "word":
        field = {"$ref": f"#/components/schemas/{kind}/properties/{topic.word}"}
        return {kind: {"name": kind, "summary": summary, "contentType": "text/plain", "payload": field}}
    return {kind: {"name": kind, "summary": summary, "contentType": "application/json", "payload": schema}}


def _task_form(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    binding = {
        "responseTopic": {"type": "string", "description": "Where the answer goes instead of `answer/...`."},
        "correlationData": {"type": "string", "description": "Returned unchanged with the answer."},
        "bindingVersion": _MQTT_BINDING,
    }
    return {
        "name": name,
        "summary": TASK_FORMS[name],
        "contentType": TASK_CONTENT_TYPES[name],
        "payload": _binary("The file.") if name == "TaskPicture" else schema,
        "headers": _user_properties(),
        "bindings": {"mqtt": binding},
    }


def _user_properties() -> dict[str, Any]:
    """Return the schema of MQTT 5 user properties."""
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "MQTT 5 user properties, for what neither body nor topic says.",
        "properties": {
            "client": text | {"description": PARAMETERS["client"]},
            "task": text | {"description": "The sensor's own id for the task; the same id, the same answer."},
            "deadline_ms": text
            | {"description": f"{limits.MIN_DEADLINE_MS:g} to {limits.MAX_DEADLINE_MS:g} milliseconds."},
            TRACEPARENT: text
            | {"description": "The sensor's span (W3C Trace Context); returned unchanged with the answer."},
        },
    }


def _binary(description: str) -> dict[str, Any]:
    return {"type": "string", "format": "binary", "description": description}


def _operations(topic: Topic[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return what each role does on a topic."""
    sends = [(f"{role}-sends-{channel_id(topic)}", _operation(topic, "send")) for role in topic.publishers]
    receives = [
        (f"{role}-receives-{channel_id(topic)}", _operation(topic, "receive")) for role in topic.subscribers
    ]
    if topic.publishers == (SENSOR,):
        reply = {"channel": _channel_ref(ANSWER), "messages": _message_refs(ANSWER)}
        sends = [(name, operation | {"reply": reply}) for name, operation in sends]
    return sends + receives


def _operation(topic: Topic[Any], action: str) -> dict[str, Any]:
    mqtt: dict[str, Any] = {"qos": topic.qos, "bindingVersion": _MQTT_BINDING}
    if action == "send":
        mqtt["retain"] = topic.retain
    return {
        "action": action,
        "channel": _channel_ref(topic),
        "summary": topic.summary,
        "messages": _message_refs(topic),
        "bindings": {"mqtt": mqtt},
    }


def _channel_ref(topic: Topic[Any]) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel_id(topic)}"}


def _message_refs(topic: Topic[Any]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel_id(topic)}/messages/{name}"} for name in _messages(topic)]
