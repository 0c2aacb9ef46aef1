"""The table of topics: every name leads to exactly one entry, and every entry is bounded."""

import base64
import json
import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from splitplace.messages import limits
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.cluster import ClusterMembers
from splitplace.messages.findings import AnyPrediction
from splitplace.messages.frames import AGGREGATOR_INBOX, GATEWAY_SENDER
from splitplace.messages.task import Answer, TaskRequest, TaskResult
from splitplace.messages.topics import (
    DASHBOARD,
    ENROLLER,
    HOME_ASSISTANT,
    NEWCOMER,
    NODE,
    SENSOR,
    SERVICES,
    TENSOR,
    Topic,
    all_topics,
)
from tests.support.message_examples import names

TOPICS = list(all_topics())
ROLES = {*SERVICES, NODE, SENSOR, DASHBOARD, HOME_ASSISTANT, ENROLLER, NEWCOMER}

every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.pattern)


@given(data=st.data(), topic=st.sampled_from(TOPICS))
def test_a_name_made_for_a_topic_leads_back_to_it_and_to_no_other(
    data: st.DataObject, topic: Topic[Message]
) -> None:
    values = {parameter: data.draw(names) for parameter in topic.parameters}
    name = topic.at(**values)
    assert topic.match(name) == values
    assert [other.pattern for other in TOPICS if other.match(name) is not None] == [topic.pattern]
    assert matches(topic.filter, name)


def matches(topic_filter: str, name: str) -> bool:
    """Whether an MQTT filter takes a topic name."""
    wanted, given_levels = topic_filter.split("/"), name.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        given_levels = given_levels[: len(wanted)]
    return len(wanted) == len(given_levels) and all(
        level in {"+", found} for level, found in zip(wanted, given_levels, strict=True)
    )


def levels_of(topic: Topic[Message]) -> int:
    """Return the number of levels that a filter names; `#` takes none or more."""
    return topic.filter.removesuffix("/#").count("/") + 1


def test_no_two_filters_can_take_the_same_message() -> None:
    """The broker would deliver it twice, and a handler would read another type."""
    for one, other in combinations(TOPICS, 2):
        levels = list(zip(one.filter.split("/"), other.filter.split("/"), strict=False))
        depths = sorted((levels_of(one), levels_of(other)))
        may_meet = depths[0] == depths[1] or (one if levels_of(one) == depths[0] else other).is_open
        assert not (may_meet and all("+" in pair or pair[0] == pair[1] for pair in levels)), (
            one.pattern,
            other.pattern,
        )


@given(topic=st.sampled_from(TOPICS), name=st.text(max_size=40))
def test_names_of_other_shapes_do_not_match(topic: Topic[Message], name: str) -> None:
    if topic.match(name) is not None:
        assert matches(topic.filter, name)
    assert topic.is_open or topic.match(f"{topic.pattern}/more") is None
    assert topic.match(f"/{topic.pattern}") is None


@every_topic
def test_a_parameter_that_is_not_given_is_an_error(topic: Topic[Message]) -> None:
    for parameter in topic.parameters:
        with pytest.raises(KeyError):
            topic.at(**dict.fromkeys(set(topic.parameters) - {parameter}, "x"))


@every_topic
def test_publishers_and_subscribers_are_known_roles(topic: Topic[Message]) -> None:
    assert topic.publishers
    assert topic.subscribers
    assert {*topic.publishers, *topic.subscribers} <= ROLES


@every_topic
def test_every_topic_is_bounded_below_what_the_broker_lets_through(topic: Topic[Message]) -> None:
    name = topic.at(**dict.fromkeys(topic.parameters, "n" * 129))
    overhead = len(name) + 2048  # the packet's own header, prefix and properties
    assert topic.max_bytes > 0
    assert topic.max_bytes + overhead <= limits.MAX_PACKET_BYTES


@every_topic
def test_only_small_or_bounded_messages_are_retained(topic: Topic[Message]) -> None:
    if topic.retain:
        assert topic.encoding in {"json", "word"}
        if topic.message is not ClusterMembers:
            assert topic.max_bytes <= limits.MAX_CATALOGUE_BYTES


def test_binary_stands_only_below_tensor_and_fragment() -> None:
    """So that somebody who watches everything else can read it."""
    subtrees = {topic.pattern.split("/")[0] for topic in TOPICS if topic.encoding == "frame"}
    assert subtrees == {"tensor", "fragment"}


def test_no_node_can_take_the_aggregators_inbox_or_send_as_the_gateway() -> None:
    for name in (AGGREGATOR_INBOX, GATEWAY_SENDER):
        assert TENSOR.match(TENSOR.at(receiver=name, sender="n1")) == {"receiver": name, "sender": "n1"}
        assert not re.match(r"[A-Za-z0-9]", name)


def largest(schema: dict[str, Any], definitions: dict[str, Any]) -> int:
    """Most bytes that a valid value of a JSON schema can take as compact JSON."""
    match schema:
        case {"$ref": reference}:
            return largest(definitions[reference.rsplit("/", 1)[1]], definitions)
        case {"anyOf": choices} | {"oneOf": choices}:
            return max(largest(choice, definitions) for choice in choices)
        case {"type": "object", "properties": fields}:
            return 2 + sum(len(name) + 4 + largest(field, definitions) for name, field in fields.items())
        case {"type": "array", "maxItems": int(count), "items": items}:
            return 2 + count * (1 + largest(items, definitions))
        case _:
            return largest_scalar(schema)


def largest_scalar(schema: dict[str, Any]) -> int:
    """Most bytes of a text, a number or a fixed value."""
    match schema:
        case {"const": value}:
            return len(str(value)) + 2
        case {"enum": values}:
            return max(map(len, values)) + 2
        case {"type": "string", "maxLength": int(length)}:
            return 2 + 6 * length  # a control character becomes \u0000
        case {"type": "string", "pattern": pattern}:  # of ASCII: its classes and quantifiers say how long
            return 2 + sum(int(most or 1) for most in CHARACTERS.findall(pattern))
        case {"type": "integer"}:
            return len(str(schema.get("maximum", schema.get("exclusiveMaximum"))))
        case _:
            return {"number": 24, "boolean": 5, "null": 4}[schema["type"]]


CHARACTERS = re.compile(r"\[[^\]]+\](?:\{(?:\d+,)?(\d+)\})?|\\\.")
"""One class of a pattern with its quantifier, or an escaped dot."""


def test_the_measure_of_the_largest_message_is_not_too_small() -> None:
    schema = {
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\\.[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
    }
    assert largest(schema, {}) == 2 + 64 + 1 + 64
    assert largest({"type": "string", "pattern": "^[0-9a-f]{64}$"}, {}) == 66


@every_topic
def test_the_largest_valid_message_fits_its_topic(topic: Topic[Message]) -> None:
    """Some types can say more than their topic carries, and something else bounds each of them.

    A task is bounded by its payload; a catalogue entry by the size of its manifest, which the store checks
    before it is published; how busy a cluster is by its nodes and what they load (docs/limits.md); an
    answer by what all its predictions share (the next test).
    """
    if (
        topic.message in {TaskRequest, Application, ClusterMembers, Answer, TaskResult}
        or topic.encoding == "frame"
    ):
        return
    schema = topic.message.model_json_schema()
    assert largest(schema, schema.get("$defs", {})) <= topic.max_bytes


LONG = "\U0001f600" * 100
"""A label that takes most bytes in JSON."""
SCORED = {"label": LONG, "index": 100_000, "confidence": 0.123456}
LARGEST_PREDICTIONS: dict[str, list[dict[str, Any]]] = {
    "classification": [{**SCORED, "top": [SCORED] * 2}] * (limits.MAX_FOUND // 2),
    "multi-label": [{"kind": "multi-label", "labels": [SCORED]}] * limits.MAX_FOUND,
    "detection": [
        {"kind": "detection", "objects": [{**SCORED, "box": [-99999999.99] * 4}] * limits.MAX_FOUND},
        *[{"kind": "detection", "objects": []}] * (limits.MAX_BATCH - 1),
    ],
    "segmentation": [
        {
            "kind": "segmentation",
            "png": base64.b64encode(bytes(limits.MAX_FINDING_BYTES)).decode(),
            "regions": [{"label": LONG, "index": 255, "share": 1 / 3}] * limits.MAX_REGIONS,
        }
    ],
    "embedding": [{"kind": "embedding", "values": [-1.234567e-38] * limits.MAX_FOUND_VALUES}],
    "sequence": [{"kind": "sequence", "text": LONG[:16], "confidence": 1 / 3}] * limits.MAX_BATCH,
    "tensors": [
        {
            "kind": "tensors",
            "tensors": [
                {
                    "name": "n" * 256,
                    "dtype": "float32",
                    "shape": [limits.MAX_FINDING_BYTES // 4],
                    "data": base64.b64encode(bytes(limits.MAX_FINDING_BYTES)).decode(),
                }
            ],
        }
    ],
}
"""As much of each kind as the result aggregator puts into one answer."""


@pytest.mark.parametrize("kind", LARGEST_PREDICTIONS)
def test_the_largest_answer_of_each_kind_fits(kind: str) -> None:
    adapter = TypeAdapter(tuple[AnyPrediction, ...])
    predictions = adapter.validate_json(json.dumps(LARGEST_PREDICTIONS[kind]))
    rest = Answer.model_json_schema()
    rest["properties"].pop("predictions")
    room = limits.MAX_ANSWER_BYTES - largest(rest, rest["$defs"])
    assert len(adapter.dump_json(predictions)) <= room
