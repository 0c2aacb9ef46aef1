"""Which devices Home Assistant is told of, and when they go."""

import json
import re
from typing import Any

import pytest

from splitplace.commands.home_assistant.devices import Devices, slug
from splitplace.commands.home_assistant.inventory import SETTLE_S, SETTLED_GATEWAY_S, Inventory
from splitplace.commands.home_assistant.pictures import EVERY_S, MAX_BYTES, Pictures
from splitplace.messages.cluster import NodeStatus, ServiceStatus
from splitplace.messages.metrics import SensorMetrics
from splitplace.messages.names import OTHER_SENSORS
from splitplace.messages.topics import GATEWAY
from tests.support.message_examples import application
from tests.support.messages import BOOTS

LATE_S = SETTLE_S + SETTLED_GATEWAY_S + 1
PNG = b"\x89PNG\r\n\x1a\n..."


def gateway(boot: str = BOOTS[0], *, online: bool = True) -> ServiceStatus:
    return ServiceStatus(service=GATEWAY, boot=boot, online=online, software="1")


def sensor(key: str = "camera") -> SensorMetrics:
    counts = dict.fromkeys(
        ("finished", "answered", "on_time", "late", "refused", "invalid", "expired", "failed"), 0
    )
    fields = {
        "sensor": key,
        "name": key,
        "late_ratio": None,
        "last_status": "answered",
        "last_response_ms": 1.0,
    }
    return SensorMetrics.model_validate(fields | counts)


@pytest.fixture
def inventory() -> Inventory:
    """A system with an application, a node and a sensor, all told of."""
    inventory = Inventory(Devices("splitplace/v1", "1"), 0.0)
    for message in (gateway(), application(), NodeStatus(node="pi", boot=BOOTS[0], online=True), sensor()):
        inventory.apply(message, 0.0)
    assert len(inventory.news(0.0)) == 4
    return inventory


def gone(inventory: Inventory, now_s: float) -> list[str]:
    news = inventory.news(now_s)
    assert all(text == "" for _, text in news)
    return [topic for topic, _ in news]


def test_nothing_is_told_twice_until_home_assistant_starts_again(inventory: Inventory) -> None:
    assert inventory.news(LATE_S) == []
    inventory.forget_told()
    assert len(inventory.news(LATE_S)) == 4
    assert inventory.news(LATE_S) == []


def test_a_node_that_is_removed_goes_and_one_that_is_offline_stays(inventory: Inventory) -> None:
    inventory.apply(NodeStatus(node="pi", boot=BOOTS[0], online=False), LATE_S)
    assert inventory.news(LATE_S) == []
    inventory.clear("node/pi/status", LATE_S)
    assert gone(inventory, LATE_S) == [inventory.devices.config_topic("node", "pi")]


def test_an_application_that_is_removed_goes(inventory: Inventory) -> None:
    inventory.clear(f"application/{application().name}", LATE_S)
    assert gone(inventory, LATE_S) == [inventory.devices.config_topic("application", application().name)]


def test_a_sensor_that_the_gateway_forgets_goes(inventory: Inventory) -> None:
    inventory.clear("metrics/sensor/camera", LATE_S)
    assert inventory.news(LATE_S) == []
    assert gone(inventory, LATE_S + SETTLE_S + 1) == [inventory.devices.config_topic("sensor", "camera")]


def test_a_gateway_that_ends_or_clears_up_after_another_takes_no_sensor_away(inventory: Inventory) -> None:
    inventory.clear("metrics/sensor/camera", LATE_S)  # at its end
    inventory.apply(gateway(online=False), LATE_S + 1)
    assert inventory.news(LATE_S + SETTLE_S + 2) == []
    inventory.apply(gateway(BOOTS[1]), LATE_S + 20)
    inventory.clear("metrics/sensor/camera", LATE_S + 22)  # what an earlier one left
    assert inventory.news(LATE_S + 20 + SETTLED_GATEWAY_S + SETTLE_S) == []


def test_a_bridge_that_starts_anew_takes_away_what_is_gone_meanwhile_but_no_sensor() -> None:
    devices = Devices("splitplace/v1", "1")
    inventory = Inventory(devices, 0.0)
    old_node, old_sensor = devices.config_topic("node", "old"), devices.config_topic("sensor", "old")
    foreign = "homeassistant/device/something_else/config"
    for topic in (old_node, old_sensor, foreign):
        inventory.adopt(topic, "{}")
    inventory.apply(gateway(), 0.0)
    assert [topic for topic, _ in inventory.news(1.0)] == [devices.config_topic("system")]
    assert gone(inventory, LATE_S) == [old_node]


def test_sensors_that_count_together_are_no_device(inventory: Inventory) -> None:
    inventory.apply(sensor(OTHER_SENSORS), LATE_S)
    assert inventory.news(LATE_S) == []


@pytest.mark.parametrize("name", ["front~20door", "a.b", "pi"])
def test_a_device_has_what_home_assistant_wants(name: str) -> None:
    """The schemas of Home Assistant 2026.2.3 took these devices; see docs/home-assistant.md."""
    devices = Devices("home/ai", "1")
    device: Any = devices.sensor(name, "front door", picture=True)
    topic = devices.config_topic("sensor", name)
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", topic)
    assert device["origin"]["name"] == "SplitPlace"
    assert device["availability"] == [{"topic": "home/ai/availability/service/gateway"}]
    ids = [entity["unique_id"] for entity in device["components"].values()]
    assert len(set(ids)) == len(ids)
    assert device["components"]["label"]["state_topic"] == f"home/ai/latest/sensor/{name}"
    assert device["components"]["picture"]["image_topic"] == devices.picture_topic(name)
    assert json.loads(json.dumps(device)) == device


def test_an_image_exists_only_where_pictures_are_allowed() -> None:
    devices = Devices("splitplace/v1", "1")
    assert "picture" not in devices.sensor("camera", "camera", picture=False)["components"]


def test_different_names_have_different_slugs() -> None:
    names = ["a.b", "a_b", "a~b", "a b", "ab"]
    assert len({slug(name) for name in names}) == len(names)


def test_pictures_are_bare_files_of_named_sensors_now_and_then() -> None:
    pictures = Pictures()
    assert pictures.take("task/mnist", PNG, 0.0) is None
    assert pictures.take("task/mnist/camera/1", b'{"images": []}', 0.0) is None
    assert pictures.take("task/mnist/camera/1", PNG + b"x" * MAX_BYTES, 0.0) is None
    assert pictures.take("task/mnist/front door/1", PNG, 0.0) == "front~20door"
    assert pictures.take("task/mnist/front door/2", PNG, EVERY_S / 2) is None
    assert pictures.take("task/mnist/front door/3", PNG, EVERY_S) == "front~20door"
