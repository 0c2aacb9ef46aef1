"""The page `docs/topics.md`, made from the topic table: `splitplace asyncapi --markdown`."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from splitplace.commands.asyncapi.document import FRAME, PARAMETERS, PREFIX, TASK_FORMS
from splitplace.commands.asyncapi.message_schemas import message_schemas
from splitplace.messages import limits
from splitplace.messages.base import Name, Sha256
from splitplace.messages.names import TaskKey
from splitplace.messages.topics import Topic, all_topics
from splitplace.messages.trace_context import TraceParent

_INTRODUCTION = f"""# Topics and messages

Made by `splitplace asyncapi --markdown` from `messages/topics.py`; do not edit it. The same as a document
for machines: [asyncapi.json](asyncapi.json).

All topics stand below the prefix `{PREFIX}` (`--prefix`). JSON is UTF-8, one object. Fields that are not
listed are ignored; another `version` than 1 makes a message invalid. A *name* is 1 to 64 letters, digits,
`_`, `.` or `-`, a letter or digit first. Durations travel, never points in time.
Sizes are those of the MQTT payload; what is larger is refused.
"""

_TASKS = """## Sending a task

A task takes one of three forms, told apart by the MQTT 5 content type or, without one, by the first bytes:

{forms}

Client, task id and deadline may stand in the topic, in the body, or in MQTT 5 user properties (`client`,
`task`, `deadline_ms`); what is nowhere is made up, and the deadline is the application's default. The answer
goes to the response topic with the request's correlation data, where an MQTT 5 client gives them, else to
`answer/<client>/<task>`. It is JSON, or msgpack where the task declared the content type
`application/msgpack`. A user property `traceparent` (W3C Trace Context) comes back with the answer, and the
trace of the task belongs to it. A task id that was sent before gives the stored answer again, never a second
run.
"""

_PATTERNS: dict[str, str] = {
    get_args(kind)[1].pattern: text
    for kind, text in (
        (Name, "name"),
        (TaskKey, "task key: sensor, task and incarnation, joined by dots"),
        (Sha256, "64 hexadecimal digits"),
        (TraceParent, "`traceparent` of W3C Trace Context"),
    )
}
"""Descriptions of the patterns of strings."""

_ENCODINGS = {"task": "three forms", "json": "JSON", "frame": "binary frame", "word": "bare text"}


def markdown() -> str:
    """Return the page."""
    forms = "\n".join(f"- {text}" for text in TASK_FORMS.values())
    parts = [
        _INTRODUCTION,
        *_topic_tables(),
        "## Variable levels\n",
        _table(("level", "is"), [(f"`{{{name}}}`", text) for name, text in PARAMETERS.items()]),
        _TASKS.format(forms=forms),
        "## Binary frames\n",
        FRAME.replace("`x-frame-header`", "`TensorHeader` or `FragmentHeader` below") + "\n",
        "## Fields\n",
        *_field_tables(),
    ]
    return "\n".join(parts)


def _topic_tables() -> Iterator[str]:
    head = ("topic", "message", "from", "to", "QoS", "retained", "at most", "")
    yield "## Topics\n"
    yield _table(head, [_row(topic) for topic in all_topics()])


def _row(topic: Topic[Any]) -> tuple[str, ...]:
    kind = topic.message.__name__
    encoding = _ENCODINGS[topic.encoding]
    return (
        f"`{topic.pattern}`",
        f"[{kind}](#{kind.lower()}), {encoding}",
        ", ".join(topic.publishers),
        ", ".join(topic.subscribers),
        str(topic.qos),
        "yes" if topic.retain else "",
        _size(topic.max_bytes),
        topic.summary,
    )


def _size(count: int) -> str:
    if count % limits.MEBIBYTE == 0:
        return f"{count // limits.MEBIBYTE} MiB"
    return f"{count // limits.KIBIBYTE} KiB" if count % limits.KIBIBYTE == 0 else f"{count:,} bytes"


def _field_tables() -> Iterator[str]:
    for name, schema in message_schemas("{model}").items():
        rows = [
            (
                f"`{field}`" + ("" if field in schema.get("required", ()) else " (optional)"),
                _type(described),
                described.get("description", ""),
            )
            for field, described in schema["properties"].items()
        ]
        yield f"### {name}\n\n{schema['description']}\n"
        yield _table(("field", "type", "meaning"), rows)


def _type(schema: dict[str, Any]) -> str:
    """Describe a schema in a few words."""
    match schema:
        case {"$ref": name}:
            return f"[{name}](#{name.lower()})"
        case {"allOf": choices} | {"anyOf": choices} | {"oneOf": choices}:
            return " or ".join(_type(choice) for choice in choices)
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"type": "array"}:
            return _array(schema)
        case _:
            return _text(schema) if schema["type"] == "string" else _number(schema)


def _array(schema: dict[str, Any]) -> str:
    match schema:
        case {"prefixItems": [first, *others]}:
            return f"{1 + len(others)} of {_type(first)}"
        case _:
            return f"up to {schema['maxItems']:,} of {_type(schema['items'])}"


def _text(schema: dict[str, Any]) -> str:
    match schema:
        case {"contentEncoding": _}:
            return "bytes"
        case {"maxLength": length}:
            return f"text of up to {length} characters"
        case _:
            return _PATTERNS.get(schema["pattern"]) or f"text, `{schema['pattern']}`"


def _number(schema: dict[str, Any]) -> str:
    least, most = (schema.get(key) for key in ("minimum", "maximum"))
    if most is None and "exclusiveMaximum" in schema:
        most = schema["exclusiveMaximum"] - 1
    name = {"boolean": "true or false", "null": "null"}.get(schema["type"], schema["type"])
    return name if least is None else f"{name}, {_figure(least)} to {_figure(most)}"


def _figure(value: float | None) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in Markdown, with bars inside cells escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )
