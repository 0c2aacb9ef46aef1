#!/usr/bin/env python3
"""A sensor: sends pictures, or sounds as WAV, one after the other, and prints what was found in each.

A plain MQTT 5 client that imports nothing of SplitPlace: docs/topics.md has all it needs. The exit code
is 1 if a file got no answer with a result.

    python examples/sensor.py photo.jpg --application detector
"""

import argparse
import json
import os
import queue
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

CONNECT_S = 10.0
PATIENCE_S = 3.0
"""Wait this long after the deadline for an answer; the system promises one before that."""


class Sensor:
    """Sends tasks of one application, and waits for their answers."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        name = arguments.name
        self._tasks = f"{arguments.prefix}/task/{arguments.application}/{name}"
        self._answers = f"{arguments.prefix}/answer/{name}"
        self._ready: queue.Queue[str] = queue.Queue()
        self._heard: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{name}-{secrets.token_hex(4)}",  # two clients of one id throw each other out
            protocol=mqtt.MQTTv5,
        )
        self._client.on_socket_open = send_at_once
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.put("")
        self._client.on_message = lambda _client, _data, message: self._heard.put(message)
        broker = urlsplit(arguments.broker)
        username = arguments.username or unquote(broker.username or "") or None
        password = os.environ.get("SPLITPLACE_PASSWORD") or unquote(broker.password or "") or None
        self._client.username_pw_set(username, password)
        secure = broker.scheme == "mqtts"
        if secure:
            self._client.tls_set(ca_certs=arguments.ca_file)
        self._client.connect_async(broker.hostname or "127.0.0.1", broker.port or (8883 if secure else 1883))

    def connect(self) -> None:
        """Wait until answers can be received. Raises ConnectionError."""
        self._client.loop_start()
        try:
            refusal = self._ready.get(timeout=CONNECT_S)
        except queue.Empty:
            refusal = "no answer from the broker"
        if refusal:
            raise ConnectionError(refusal)

    def ask(self, content: bytes, deadline_ms: float) -> dict[str, Any] | None:
        """Send a file as it is and return its answer; None if there was none."""
        task = secrets.token_hex(4)
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("deadline_ms", str(deadline_ms))]
        properties.ResponseTopic = f"{self._answers}/{task}"
        self._client.publish(f"{self._tasks}/{task}", content, qos=1, properties=properties)
        end_s = time.monotonic() + deadline_ms / 1000 + PATIENCE_S
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                message = self._heard.get(timeout=left_s)
            except queue.Empty:
                break
            if message.topic == properties.ResponseTopic:  # else an answer that came too late
                return json.loads(message.payload)
        return None

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        if reason.is_failure:
            self._ready.put(str(reason))
        else:  # on every connect: the broker may have forgotten us
            client.subscribe(f"{self._answers}/+", qos=1)


def send_at_once(_client: mqtt.Client, _data: object, opened: socket.socket) -> None:
    """Else a small packet waits until the one before is acknowledged: up to 40 ms for each task."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def words(prediction: dict[str, Any] | None) -> str:
    """Return what was found in an input, in words."""
    match prediction:
        case None:
            text = "nothing: NaN or infinity"
        case {"kind": "detection", "objects": objects}:
            text = ", ".join(f"{scored(each)} at {rounded(each['box'])}" for each in objects) or "no object"
        case {"kind": "multi-label", "labels": labels}:
            text = ", ".join(map(scored, labels)) or "no label"
        case {"kind": "segmentation", "regions": regions}:
            text = ", ".join(f"{each['label']} {each['share']:.0%}" for each in regions)
        case {"kind": "embedding", "values": values}:
            text = f"a vector of {len(values)} values"
        case {"kind": "sequence", "text": read}:
            text = read
        case {"kind": "tensors", "tensors": tensors}:
            text = ", ".join(f"{each['name']} {each['dtype']}{list(each['shape'])}" for each in tensors)
        case _:
            text = scored(prediction)
    return text


def scored(found: dict[str, Any]) -> str:
    """Return a label with its confidence."""
    return f"{found['label']} {found['confidence']:.0%}"


def rounded(box: list[float]) -> str:
    """Return left, top, right and bottom of a box in whole pixels."""
    return " ".join(f"{side:.0f}" for side in box)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", help="pictures, or sounds as WAV")
    add("--application", default="mnist")
    add("--deadline-ms", type=float, default=2000.0)
    add("--broker", default="mqtt://127.0.0.1:1883", help="mqtt:// or mqtts:// URL")
    add("--username", default=os.environ.get("SPLITPLACE_USERNAME"), help="password: SPLITPLACE_PASSWORD")
    add("--ca-file", help="certificate authority for mqtts://")
    add("--prefix", default="splitplace/v1", help="topic prefix")
    add("--name", default=f"sensor-{secrets.token_hex(3)}", help="of this sensor")
    arguments = parser.parse_args(argv)
    for file in arguments.files:
        if not file.is_file():
            parser.error(f"{file}: no such file")
    return arguments


def main() -> None:
    """Send all files and print their answers."""
    arguments = parse()
    sensor = Sensor(arguments)
    answered = 0
    try:
        sensor.connect()
        for file in arguments.files:
            answer = sensor.ask(file.read_bytes(), arguments.deadline_ms)
            if answer is None:
                print(f"{file}: no answer", flush=True)
            elif answer["status"] != "answered":
                print(f"{file}: {answer['status']}: {answer['reason']}", flush=True)
            else:
                answered += 1
                print(*(f"{file}: {words(found)}" for found in answer["predictions"]), sep="\n", flush=True)
    except ConnectionError as error:
        sys.exit(f"{arguments.broker.rpartition('@')[2]}: {error}")  # without user name and password
    finally:
        sensor.close()
    sys.exit(answered < len(arguments.files))


if __name__ == "__main__":
    main()
