"""What is published, and the ways in which that can fail."""

from typing import NamedTuple

import aiomqtt
from paho.mqtt.properties import Properties


class Publication(NamedTuple):
    """A message that is published."""

    topic: str
    """With prefix."""
    payload: bytes
    qos: int = 1
    retain: bool = False
    properties: Properties | None = None


class ConnectionLostError(aiomqtt.MqttError):
    """The connection ended before a publication was acknowledged."""


class RefusedError(aiomqtt.MqttError):
    """The broker does not take a publication. The message is its reason."""
