"""Devices as Home Assistant's MQTT discovery wants them (device-based, since 2024.11). Pure.

Entities read the figures of the system from its own topics; only the light and pictures come from the bridge.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from splitplace.messages.topics import (
    AVAILABILITY_NODE,
    AVAILABILITY_SERVICE,
    AVAILABILITY_SYSTEM,
    GATEWAY,
    LATEST_OF_APPLICATION,
    LATEST_OF_SENSOR,
    METRICS_APPLICATION,
    METRICS_CLUSTER,
    METRICS_GATEWAY,
    METRICS_NODE,
    METRICS_SENSOR,
    METRICS_TASKS,
)

ROOT: Final = "homeassistant"
"""Where Home Assistant listens, by default."""
STATUS: Final = f"{ROOT}/status"
"""Where it says that it has started."""
LIGHT_EXPIRES_S = 120
"""The light is unavailable when the bridge was silent for this long."""

Device = Mapping[str, Any]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_ONLINE: Final = "{{ 'ON' if value == 'online' else 'OFF' }}"
_PERCENT: Final = {"unit_of_measurement": "%", "state_class": "measurement"}
_MILLISECONDS: Final = {
    "unit_of_measurement": "ms",
    "device_class": "duration",
    "state_class": "measurement",
    "suggested_display_precision": 0,
}


def slug(name: str) -> str:
    """Return a name in the letters that discovery topics allow. Different names give different slugs."""
    safe = _UNSAFE.sub("_", name)
    return safe if safe == name else f"{safe}_{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"


class Devices:
    """Makes the devices of one system."""

    def __init__(self, prefix: str, software: str) -> None:
        """No device is made yet.

        Args:
            prefix: first levels of all topics of the system.
            software: version of SplitPlace.
        """
        self._prefix = prefix
        self._software = software
        self.system_id = slug(prefix)

    @property
    def light_topic(self) -> str:
        """Where the bridge publishes the light."""
        return f"{ROOT}/{self.system_id}/light"

    def picture_topic(self, sensor: str) -> str:
        """Where the bridge publishes the last picture of a sensor."""
        return f"{ROOT}/{self.system_id}/picture/{slug(sensor)}"

    def config_topic(self, kind: str, name: str = "") -> str:
        """Where a device is described."""
        return f"{ROOT}/device/{self._id(kind, name)}/config"

    def system(self) -> Device:
        """The system as a whole."""
        light = {
            "platform": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "state_topic": self.light_topic,
            "value_template": "{{ 'OFF' if value_json.light == 'well' else 'ON' }}",
            "json_attributes_topic": self.light_topic,
            "expire_after": LIGHT_EXPIRES_S,
            "availability": [],
        }
        online = self._binary("Online", AVAILABILITY_SYSTEM.pattern, _ONLINE, "connectivity")
        components = {
            "problem": light,
            "online": {**online, "availability": []},
            "nodes": self._number("Nodes online", METRICS_CLUSTER.pattern, "online"),
            "in_flight": self._number("Tasks in flight", METRICS_GATEWAY.pattern, "in_flight"),
            "hit_rate": self._share("On time", METRICS_TASKS.pattern, "hit_rate"),
            "energy": {
                **self._number("Energy", METRICS_CLUSTER.pattern, "energy_joules"),
                "unit_of_measurement": "J",
                "device_class": "energy",
                "state_class": "total",
            },
        }
        return self._device(
            "system",
            "",
            "SplitPlace",
            model="System",
            components=components,
            availability=self._when_online(),
        )

    def application(self, name: str, title: str) -> Device:
        """One application."""
        latest, metrics = LATEST_OF_APPLICATION.at(application=name), METRICS_APPLICATION.at(application=name)
        components = {
            "label": self._label(latest),
            "confidence": self._share("Confidence", latest, "confidence"),
            "hit_rate": self._share("On time", metrics, "hit_rate"),
            "response": self._time("Response, 95th percentile", metrics, "response_p95_ms"),
            "finished": {
                **self._number("Finished tasks", metrics, "finished"),
                "state_class": "total_increasing",
            },
        }
        return self._device(
            "application",
            name,
            title or name,
            model="Application",
            components=components,
            availability=self._when_online(),
        )

    def node(self, name: str) -> Device:
        """One node."""
        metrics = METRICS_NODE.at(node=name)
        availability = AVAILABILITY_NODE.at(node=name)
        online = self._binary("Online", availability, _ONLINE, "connectivity")
        throttled = self._binary(
            "Throttled",
            metrics,
            "{{ {0: 'OFF', 1: 'ON'}.get(value_json.throttled_flag) }}",
            "problem",
        )
        memory = "100 * value_json.loaded_bytes / value_json.memory_budget_bytes"
        components = {
            "online": {**online, "availability": []},
            "load": self._share("Load", metrics, "cpu_ratio"),
            "memory": {
                **self._sensor(
                    "Memory",
                    metrics,
                    f"{{{{ ({memory}) | round(1) if value_json.memory_budget_bytes else None }}}}",
                ),
                **_PERCENT,
            },
            "temperature": {
                **self._number("Temperature", metrics, "temperature_celsius"),
                "unit_of_measurement": "°C",
                "device_class": "temperature",
            },
            "queue": self._time("Queue", metrics, "queue_ms"),
            "throttled": throttled,
        }
        return self._device(
            "node",
            name,
            name,
            model="Edge node",
            components=components,
            availability=self._when(availability),
        )

    def sensor(self, key: str, name: str, *, picture: bool) -> Device:
        """One sensor. `key` is its name in topics."""
        latest, metrics = LATEST_OF_SENSOR.at(sensor=key), METRICS_SENSOR.at(sensor=key)
        components = {
            "label": self._label(latest),
            "status": self._sensor("Last status", latest, "{{ value_json.status }}"),
            "confidence": self._share("Confidence", latest, "confidence"),
            "late": self._share("Late share", metrics, "late_ratio"),
            "response": self._time("Last response", metrics, "last_response_ms"),
            "refused": {
                **self._number("Refused tasks", metrics, "refused"),
                "state_class": "total_increasing",
            },
        }
        if picture:
            components["picture"] = {
                "platform": "image",
                "name": "Last picture",
                "image_topic": self.picture_topic(key),
            }
        gateway = self._when(AVAILABILITY_SERVICE.at(service=GATEWAY))
        return self._device("sensor", key, name, model="Sensor", components=components, availability=gateway)

    # --- parts -------------------------------------------------------------------------------------

    def _id(self, kind: str, name: str) -> str:
        return "_".join(filter(None, (self.system_id, kind, slug(name))))

    def _topic(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _when(self, availability: str) -> list[dict[str, str]]:
        return [{"topic": self._topic(availability)}]

    def _when_online(self) -> list[dict[str, str]]:
        return self._when(AVAILABILITY_SYSTEM.pattern)

    def _sensor(self, name: str, topic: str, template: str) -> dict[str, Any]:
        return {
            "platform": "sensor",
            "name": name,
            "state_topic": self._topic(topic),
            "value_template": template,
        }

    def _label(self, topic: str) -> dict[str, Any]:
        """The last label, with the rest of the answer as attributes."""
        return {
            **self._sensor("Last label", topic, "{{ value_json.label }}"),
            "json_attributes_topic": self._topic(topic),
        }

    def _number(self, name: str, topic: str, field: str) -> dict[str, Any]:
        return {
            **self._sensor(name, topic, f"{{{{ value_json.{field} }}}}"),
            "state_class": "measurement",
        }

    def _share(self, name: str, topic: str, field: str) -> dict[str, Any]:
        value = f"value_json.{field}"
        template = f"{{{{ (100 * {value}) | round(1) if {value} is number else None }}}}"
        return {**self._sensor(name, topic, template), **_PERCENT}

    def _time(self, name: str, topic: str, field: str) -> dict[str, Any]:
        return {**self._sensor(name, topic, f"{{{{ value_json.{field} }}}}"), **_MILLISECONDS}

    def _binary(self, name: str, topic: str, template: str, device_class: str) -> dict[str, Any]:
        return {
            **self._sensor(name, topic, template),
            "platform": "binary_sensor",
            "device_class": device_class,
        }

    def _device(
        self,
        kind: str,
        name: str,
        title: str,
        *,
        model: str,
        components: Mapping[str, dict[str, Any]],
        availability: list[dict[str, str]],
    ) -> Device:
        own = self._id(kind, name)
        system = self._id("system", "")
        via = {} if own == system else {"via_device": system}
        return {
            "device": {
                "identifiers": [own],
                "name": title,
                "manufacturer": "SplitPlace",
                "model": model,
                "sw_version": self._software,
                **via,
            },
            "origin": {"name": "SplitPlace", "sw_version": self._software},
            "availability": availability,
            "availability_mode": "all",
            "components": {
                part: {**entity, "unique_id": f"{own}_{part}"} for part, entity in components.items()
            },
        }
