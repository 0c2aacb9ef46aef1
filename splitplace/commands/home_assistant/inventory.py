"""What there is to tell Home Assistant of, and what has been removed. Pure: each call names its time."""

import json
from dataclasses import dataclass, field

from splitplace.commands.home_assistant.devices import Device, Devices
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.cluster import NodeStatus, ServiceStatus
from splitplace.messages.metrics import SensorMetrics
from splitplace.messages.names import OTHER_SENSORS
from splitplace.messages.topics import APPLICATION, GATEWAY, METRICS_SENSOR, NODE_STATUS

SETTLE_S = 10.0
"""Time until all that the broker keeps has come; what is missing then has been removed."""
SETTLED_GATEWAY_S = 60.0
"""Within this time after its start a gateway clears what an earlier one left: that removes no sensor."""
MAX_DEVICES = 1000


@dataclass
class Inventory:
    """The devices that there are."""

    devices: Devices
    began_s: float
    pictures: bool = False
    """Whether sensors have an image."""
    _applications: dict[str, str] = field(default_factory=dict)
    _nodes: set[str] = field(default_factory=set)
    _sensors: dict[str, str] = field(default_factory=dict)
    _gateway: tuple[str, float] = ("", 0.0)
    """Boot id of the gateway that is online, and since when."""
    _leaving: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Sensors whose figures were cleared, by which gateway and when."""
    _told: dict[str, str] = field(default_factory=dict)
    """What the broker holds, by topic."""

    def adopt(self, topic: str, payload: str) -> None:
        """Note a device that an earlier bridge has told of."""
        mine = f"/device/{self.devices.system_id}_"
        if mine in topic and payload and len(self._told) < MAX_DEVICES:
            self._told.setdefault(topic, payload)

    def apply(self, message: Message, now_s: float) -> None:
        """Take in a message of the system."""
        match message:
            case Application():
                self._applications[message.name] = message.title
            case NodeStatus():
                self._nodes.add(message.node)
            case SensorMetrics() if message.sensor != OTHER_SENSORS:
                self._sensors[message.sensor] = message.name
                self._leaving.pop(message.sensor, None)
            case ServiceStatus() if message.service == GATEWAY:
                if not message.online:
                    self._gateway = ("", now_s)
                elif message.boot != self._gateway[0]:
                    self._gateway = (message.boot, now_s)
            case _:
                pass

    def clear(self, name: str, now_s: float) -> None:
        """Note that the broker keeps nothing more on a topic."""
        if found := NODE_STATUS.match(name):
            self._nodes.discard(found["node"])
        elif found := APPLICATION.match(name):
            self._applications.pop(found["application"], None)
        elif found := METRICS_SENSOR.match(name):
            boot, since_s = self._gateway
            if boot and now_s - since_s > SETTLED_GATEWAY_S:
                self._leaving[found["sensor"]] = (boot, now_s)

    def forget_told(self) -> None:
        """Tell everything again: Home Assistant has started, or the broker is a new one."""
        self._told = dict.fromkeys(self._told, "")

    def news(self, now_s: float) -> list[tuple[str, str]]:
        """Return what to publish: topics with a device, or with nothing where it is gone."""
        removed = {self.devices.config_topic("sensor", name) for name in self._removed_sensors(now_s)}
        wanted = {topic: json.dumps(device) for topic, device in self._wanted().items()}
        is_settled = now_s - self.began_s > SETTLE_S
        gone = [
            topic
            for topic in self._told
            if topic not in wanted and (topic in removed or (is_settled and not self._is_sensor(topic)))
        ]
        changed = [(topic, text) for topic, text in wanted.items() if self._told.get(topic) != text]
        self._told |= dict(changed)
        for topic in gone:
            del self._told[topic]
        return [*changed, *((topic, "") for topic in gone)]

    def _removed_sensors(self, now_s: float) -> list[str]:
        """Forget sensors that the gateway has forgotten, and return them."""
        due = []
        for sensor, (boot, at_s) in list(self._leaving.items()):
            if boot != self._gateway[0]:  # it was ending, and cleared everything
                del self._leaving[sensor]
            elif now_s - at_s > SETTLE_S:
                del self._leaving[sensor]
                self._sensors.pop(sensor, None)
                due.append(sensor)
        return due

    def _is_sensor(self, topic: str) -> bool:
        return topic.startswith(self.devices.config_topic("sensor", "x").removesuffix("x/config"))

    def _wanted(self) -> dict[str, Device]:
        make = self.devices
        wanted = {make.config_topic("system"): make.system()}
        for name, title in sorted(self._applications.items()):
            wanted[make.config_topic("application", name)] = make.application(name, title)
        for name in sorted(self._nodes):
            wanted[make.config_topic("node", name)] = make.node(name)
        for key, name in sorted(self._sensors.items()):
            wanted[make.config_topic("sensor", key)] = make.sensor(key, name, picture=self.pictures)
        return wanted
