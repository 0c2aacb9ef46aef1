"""Configurations and programs for other people's tools use topics that exist, and handle what may come."""

import importlib.util
import json
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from splitplace.messages.topics import ANSWER, AVAILABILITY_SYSTEM, TASK_NAMED, all_topics

ROOT = Path(__file__).parents[2]
PREFIX = "splitplace/v1/"


def test_telegraf_subscribes_to_every_metric_and_names_each_level() -> None:
    config = tomllib.loads((ROOT / "deploy" / "telegraf" / "splitplace.conf").read_text(encoding="utf-8"))
    inputs = config["inputs"]["mqtt_consumer"]
    filters = {name.removeprefix(PREFIX) for each in inputs for name in each["topics"]}
    assert filters - {"availability/#"} == {
        topic.filter for topic in all_topics() if topic.pattern.startswith("metrics/")
    }
    for each in inputs:
        for parsing in each.get("topic_parsing", ()):
            depth = parsing["topic"].count("/")
            assert parsing["tags"].count("/") == depth
            assert all(name.count("/") == depth for name in each["topics"])


def test_the_flow_of_node_red_is_connected_and_uses_topics_that_exist() -> None:
    flow = json.loads((ROOT / "examples" / "node-red" / "flow.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in flow}
    wires = [(node["id"], to) for node in flow for output in node.get("wires", ()) for to in output]
    assert all(to in nodes for _, to in wires)
    inputs = {node["topic"].removeprefix(PREFIX) for node in flow if node["type"] == "mqtt in"}
    assert inputs == {ANSWER.at(client="node-red", task="+"), AVAILABILITY_SYSTEM.pattern}
    sent = [node["func"] for node in flow if node["type"] == "function" and "/task/" in node["func"]]
    assert [
        PREFIX + TASK_NAMED.at(application="mnist", client="node-red", task="") in text for text in sent
    ] == [True]


class Client:
    """`umqtt.simple`, with answers from a list."""

    def __init__(self, *statuses: str | None) -> None:
        self._statuses = list(statuses)
        self._hear: Callable[[bytes, bytes], None] = lambda _topic, _payload: None
        self._due: list[tuple[bytes, bytes]] = []
        self.sent: list[str] = []

    def set_callback(self, hear: Callable[[bytes, bytes], None]) -> None:
        self._hear = hear

    def publish(self, topic: bytes, _payload: bytes, _retain: bool, qos: int) -> None:  # noqa: FBT001 - as it is
        assert qos == 1
        self.sent.append(topic.decode())
        status = self._statuses.pop(0)
        stale = {"status": "answered", "predictions": [{"label": "old"}]}
        self._due.append((b"splitplace/v1/answer/esp32/old", json.dumps(stale).encode()))
        if status is not None:
            answer = {"status": status, "predictions": [{"label": "7"}] if status == "answered" else []}
            body = json.dumps(answer, separators=(",", ":")).encode()
            self._due.append((topic.replace(b"task/mnist", b"answer"), body))

    def check_msg(self) -> None:
        if self._due:
            self._hear(*self._due.pop(0))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The MicroPython sensor in this interpreter, with a clock that jumps."""
    umqtt = ModuleType("umqtt.simple")
    umqtt.MQTTClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umqtt", ModuleType("umqtt"))
    monkeypatch.setitem(sys.modules, "umqtt.simple", umqtt)
    clock = [0]
    jump: Any = lambda milliseconds: clock.__setitem__(0, clock[0] + milliseconds)  # noqa: E731
    for name, function in (
        ("sleep_ms", jump),
        ("ticks_ms", lambda: clock[0]),
        ("ticks_add", lambda one, other: one + other),
        ("ticks_diff", lambda one, other: one - other),
    ):
        monkeypatch.setattr(time, name, function, raising=False)
    spec = importlib.util.spec_from_file_location(
        "micropython_sensor", ROOT / "examples" / "micropython" / "sensor.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("statuses", "found", "sent"),
    [
        (("answered",), ("answered", "7"), 1),
        (("refused", "refused", "answered"), ("answered", "7"), 3),
        (("refused",) * 4, ("refused", None), 4),
        (("invalid",), ("invalid", None), 1),
        ((None,), (None, None), 1),
    ],
)
def test_the_sensor_for_micropython_tries_again_only_when_it_is_refused(
    program: ModuleType, statuses: tuple[str | None, ...], found: tuple[str | None, str | None], sent: int
) -> None:
    client = Client(*statuses)
    assert program.Sensor(client).ask(b"picture", 9) == found
    assert len(set(client.sent)) == len(client.sent) == sent, "each attempt is another task"
    assert client.sent[0] == "splitplace/v1/task/mnist/esp32/9-0"


def test_the_sensor_for_micropython_numbers_its_tasks_across_starts(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [program.numbered() for _ in range(3)] == [1, 2, 3]
