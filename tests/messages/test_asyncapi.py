"""The AsyncAPI document and the page of topics are current and sound."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitplace.commands.asyncapi.document import PARAMETERS, PREFIX, channel_id, document, to_json
from splitplace.commands.asyncapi.message_schemas import field_documentation
from splitplace.commands.asyncapi.topics_page import markdown
from splitplace.messages.cluster import NodeInfo
from splitplace.messages.topics import all_topics

DOCS = Path(__file__).parents[2] / "docs"
TOPICS = list(all_topics())


def test_the_committed_document_is_current() -> None:
    """If not: `splitplace asyncapi > docs/asyncapi.json`."""
    assert (DOCS / "asyncapi.json").read_text(encoding="utf-8") == to_json()


def test_the_committed_page_is_current() -> None:
    """If not: `splitplace asyncapi --markdown > docs/topics.md`."""
    assert (DOCS / "topics.md").read_text(encoding="utf-8") == markdown()


def everything_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from everything_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from everything_in(inner)


def resolve(whole: dict[str, Any], reference: str) -> Any:
    """What a reference like `#/channels/x` leads to; KeyError where it leads nowhere."""
    found: Any = whole
    root, *steps = reference.split("/")
    assert root == "#"
    for step in steps:
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    references = [part["$ref"] for part in everything_in(whole) if isinstance(part.get("$ref"), str)]
    assert len(references) > 100
    for reference in references:
        assert isinstance(resolve(whole, reference), dict), reference


def test_it_has_what_asyncapi_3_requires() -> None:
    whole = document()
    assert whole["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= whole["info"].keys()
    for server in whole["servers"].values():
        assert {"host", "protocol"} <= server.keys()
    for name, operation in whole["operations"].items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
        assert operation["action"] in {"send", "receive"}
        channel = resolve(whole, operation["channel"]["$ref"])
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
        assert channel["messages"]
    for channel in whole["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == channel.get("parameters", {}).keys()
    for key in ("messages", "schemas", "parameters"):
        assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in whole["components"][key])


def test_every_topic_is_a_channel_with_an_operation_for_each_role() -> None:
    whole = document()
    assert len(whole["channels"]) == len(TOPICS)
    for topic in TOPICS:
        channel = whole["channels"][channel_id(topic)]
        assert channel["address"] == f"{PREFIX}/{topic.pattern}"
        assert channel["x-max-bytes"] == topic.max_bytes
        for role in topic.publishers:
            sends = whole["operations"][f"{role}-sends-{channel_id(topic)}"]
            assert sends["bindings"]["mqtt"]["qos"] == topic.qos
            assert sends["bindings"]["mqtt"]["retain"] == topic.retain
        for role in topic.subscribers:
            receives = whole["operations"][f"{role}-receives-{channel_id(topic)}"]
            assert receives["action"] == "receive"
    roles = sum(len(topic.publishers) + len(topic.subscribers) for topic in TOPICS)
    assert len(whole["operations"]) == roles


def test_every_message_says_what_it_carries() -> None:
    messages = document()["components"]["messages"]
    assert {
        "TaskJson",
        "TaskMsgpack",
        "TaskPicture",
        "TensorFrame",
        "FragmentFrame",
        "Answer",
    } <= messages.keys()
    for message in messages.values():
        assert message["contentType"]
        assert message["payload"]
        assert message["summary"]
    for name in ("TensorFrame", "FragmentFrame"):
        assert messages[name]["x-frame-header"]["$ref"].startswith("#/components/schemas/")


def test_schemas_and_their_fields_are_documented() -> None:
    schemas = document()["components"]["schemas"]
    for schema in schemas.values():
        assert schema["description"]
    assert "GFLOP/s" in schemas["NodeInfo"]["properties"]["score"]["description"]
    assert field_documentation(NodeInfo)["memory_budget_bytes"].endswith("together.")


@pytest.mark.parametrize("parameter", sorted({name for topic in TOPICS for name in topic.parameters}))
def test_every_variable_level_is_explained(parameter: str) -> None:
    assert PARAMETERS[parameter]


def test_the_page_lists_every_topic_and_every_field() -> None:
    page = markdown()
    for topic in TOPICS:
        assert f"| `{topic.pattern}` |" in page
        for field in topic.message.model_fields:
            assert f"| `{field}`" in page
    anchors = set(re.findall(r"\]\(#(\w+)\)", page))
    assert anchors <= {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}


def test_the_document_is_plain_json() -> None:
    assert json.loads(to_json()) == document()
