"""Every message type refuses other protocol versions, what is not a number, and what is absurdly large.

The tests walk through the types' own fields, so that a new message is held to the same rules.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from splitplace.messages.base import Message, Name
from splitplace.messages.cluster import CancelTask
from splitplace.messages.task import TaskRequest
from splitplace.messages.topics import all_topics

MESSAGES = sorted({topic.message for topic in all_topics()}, key=lambda kind: kind.__name__)
CANCEL = {"node": "n1", "task": "camera.7", "attempt": 1}


def numbers_in(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number in a JSON schema, with where it stands."""
    if isinstance(schema, dict):
        if schema.get("type") in {"number", "integer"}:
            yield path, schema
        for key, value in schema.items():
            yield from numbers_in(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from numbers_in(value, f"{path}/{index}")


def texts_and_lists_in(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every string and array in a JSON schema, with where it stands."""
    if isinstance(schema, dict):
        if schema.get("type") in {"string", "array"}:
            yield path, schema
        for key, value in schema.items():
            yield from texts_and_lists_in(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from texts_and_lists_in(value, f"{path}/{index}")


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_number_has_a_least_and_a_greatest_value(kind: type[Message]) -> None:
    for path, schema in numbers_in(kind.model_json_schema()):
        if "const" in schema:
            continue
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), path
        assert {"maximum", "exclusiveMaximum"} & schema.keys(), path


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_text_and_every_list_has_a_greatest_length(kind: type[Message]) -> None:
    """The bytes of a task's inputs are the exception: the size of the whole payload bounds them."""
    for path, schema in texts_and_lists_in(kind.model_json_schema()):
        if schema["type"] == "array":
            assert "maxItems" in schema, path
        elif schema.get("format") != "base64url":
            assert {"maxLength", "pattern", "enum", "const"} & schema.keys(), path


@pytest.mark.parametrize("kind", MESSAGES)
def test_an_unknown_field_of_a_newer_version_is_ignored(kind: type[Message]) -> None:
    """At all depths: `Part` says so for the values inside messages."""
    assert kind.model_config.get("extra") == "ignore"
    message = CancelTask.model_validate_json(json.dumps(CANCEL | {"because": {"of": "a newer version"}}))
    assert message == CancelTask.model_validate(CANCEL)


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("version", [0, 3, "1", "2", 1.5, None, [1]])
def test_another_version_is_refused(kind: type[Message], version: object) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(json.dumps({"version": version}))
    assert ("version",) in [error["loc"] for error in caught.value.errors()]


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0", '"1"', "true"])
def test_what_is_not_a_finite_number_is_refused_in_every_field_of_numbers(
    kind: type[Message], number: str
) -> None:
    schema = kind.model_json_schema()
    for name, field in schema["properties"].items():
        choices = field.get("anyOf", [field])
        if name == "version" or not any(choice.get("type") in {"number", "integer"} for choice in choices):
            continue
        with pytest.raises(ValidationError) as caught:
            kind.model_validate_json(f'{{"{name}": {number}}}')
        assert (name,) in [error["loc"][:1] for error in caught.value.errors()], name


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, -(10**400), 2**64])
def test_numbers_that_only_msgpack_or_python_can_hold_are_refused(number: float) -> None:
    for fields in ({"attempt": number}, {"attempt": 1, "version": number}):
        with pytest.raises(ValidationError):
            CancelTask.model_validate(CANCEL | fields)
    with pytest.raises(ValidationError):
        TaskRequest.model_validate({"deadline_ms": number})


def test_messages_cannot_be_changed() -> None:
    message = CancelTask.model_validate(CANCEL)
    with pytest.raises(ValidationError):
        message.attempt = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["", "a/b", "a+b", "#", "+", "$SYS", "a b", "a\n", "a\0", "é", "_aggregator", ".", "..", "a" * 65]
)
def test_a_name_that_cannot_be_one_level_of_a_topic_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize("text", ["+/+/", "-_-_", "+/+/AA==", "+/+/AA", ""])
def test_inputs_may_be_written_in_both_alphabets_of_base64(text: str) -> None:
    request = TaskRequest.model_validate_json(json.dumps({"inputs": text}))
    assert request.inputs in {b"\xfb\xff\xbf", b"\xfb\xff\xbf\0", b""}


@pytest.mark.parametrize("text", ["A", "A===", "AA\nAA", "AA AA", "é", "%%%%", "data:image/png;base64,AAAA"])
def test_broken_base64_is_refused(text: str) -> None:
    for fields in ({"inputs": text}, {"images": [text]}):
        with pytest.raises(ValidationError):
            TaskRequest.model_validate_json(json.dumps(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline_ms": 0.0},
        {"deadline_ms": 0.5},
        {"deadline_ms": -1},
        {"deadline_ms": 86_400_001},
        {"images": []},
        {"images": [""] * 1025},
        {"labels": [0] * 1025},
        {"labels": [-1]},
        {"shape": [1] * 10},
        {"shape": [-1]},
        {"shape": [1 << 21]},
        {"dtype": "object"},
        {"codec": "bzip2"},
        {"task": "a/b"},
        {"client": "a+b"},
    ],
    ids=str,
)
def test_a_task_request_outside_the_limits_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskRequest.model_validate_json(json.dumps(fields))
