#!/usr/bin/env python3
"""A sensor of the demo: sends batches of labelled images with deadlines, and keeps every answer.

A plain MQTT 5 client, a program of its own that imports nothing of SplitPlace. It sends tasks as msgpack, as
JSON and as bare PNGs, at random moments, with batches from one image to `--batch-max` and deadlines from
hopeless to loose, and prints how many answers were right and in time. examples/sensor.py is a shorter one.

    python splitplace/commands/demo/sensor.py --samples splitplace/shipped_store/mnist/samples.npz --tasks 20
"""

import argparse
import base64
import io
import json
import math
import os
import queue
import random
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgpack
import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from PIL import Image

CONNECT_S = 10.0
PATIENCE_S = 3.0
"""Wait this long after the deadline for an answer; the system promises one before that."""
_PLANE = 2
"""Axes of a picture without channels."""
PROGRESS_EVERY_S = 5.0


@dataclass
class Task:
    """A task and its answer."""

    client: str
    task: str
    format: str
    batch: int
    deadline_ms: float
    labels: list[int] = field(repr=False)
    published_s: float
    """On this process's monotonic clock."""
    answers: int = 0
    """Must become exactly 1."""
    status: str | None = None
    reason: str = ""
    decision: str | None = None
    nodes: list[str] = field(default_factory=list)
    on_time: bool = False
    """As the gateway saw it."""
    response_ms: float | None = None
    """From the arrival at the gateway to the answer, on the gateway's clock."""
    elapsed_ms: float | None = None
    """From publishing to the answer's arrival here."""
    partial: bool = False
    """Whether some of the classes could not be predicted in time."""
    right: int = 0
    """Images whose label was right."""

    def take(self, answer: dict[str, Any], now_s: float) -> None:
        """Store the answer; a second one is only counted."""
        self.answers += 1
        if self.answers > 1:
            return
        self.status, self.reason = answer["status"], answer["reason"]
        self.decision, self.nodes = answer["decision"], answer["nodes"]
        self.on_time, self.response_ms = answer["on_time"], answer["response_ms"]
        self.partial = answer.get("partial", False)
        self.elapsed_ms = 1000 * (now_s - self.published_s)
        found = [prediction and prediction.get("index") for prediction in answer["predictions"]]
        self.right = sum(guess == truth for guess, truth in zip(found, self.labels, strict=False))


class Sensor:
    """The MQTT side: publishes tasks, and hands answers to the tasks they belong to."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.tasks: dict[str, Task] = {}
        self._prefix = arguments.prefix
        self._application = arguments.application
        self._name = arguments.name
        self._answers = f"{self._prefix}/answer/{self._name}"
        self._lock = threading.Lock()
        self._ready: queue.Queue[str] = queue.Queue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._name}-{os.urandom(4).hex()}",  # two clients of one id throw each other out
            protocol=mqtt.MQTTv5,
        )
        self._client.on_socket_open = send_at_once
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.put("")
        self._client.on_message = self._on_message
        parts = urlsplit(arguments.broker)
        username = arguments.username or unquote(parts.username or "") or None
        password = os.environ.get("SPLITPLACE_PASSWORD") or unquote(parts.password or "") or None
        self._client.username_pw_set(username, password)
        if parts.scheme == "mqtts":
            self._client.tls_set(ca_certs=arguments.ca_file)
        default_port = 8883 if parts.scheme == "mqtts" else 1883
        self._client.connect_async(parts.hostname or "127.0.0.1", parts.port or default_port)

    def connect(self) -> None:
        """Wait until answers can be received. Raises ConnectionError."""
        self._client.loop_start()
        try:
            refusal = self._ready.get(timeout=CONNECT_S)
        except queue.Empty:
            refusal = "no answer from the broker"
        if refusal:
            raise ConnectionError(refusal)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, task: Task, images: NDArray[np.uint8]) -> None:
        """Publish a task of `images` (uint8 `[N, height, width]` or `[N, channels, height, width]`)."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        fields = {
            "deadline_ms": task.deadline_ms,
            "shape": list(images.shape),
            "dtype": "uint8",
            "labels": task.labels,
        }
        if task.format == "msgpack":
            properties.ContentType = "application/msgpack"
            payload = msgpack.packb({**fields, "inputs": images.tobytes()})
        elif task.format == "json":
            properties.ContentType = "application/json"
            text = json.dumps({**fields, "inputs": base64.b64encode(images.tobytes()).decode()})
            payload = text.encode()
        else:  # a bare picture
            properties.ContentType = "image/png"
            properties.UserProperty = [("deadline_ms", str(task.deadline_ms))]
            file = io.BytesIO()
            picture = images[0] if images[0].ndim == _PLANE else np.moveaxis(images[0], 0, -1).squeeze()
            Image.fromarray(picture).save(file, "PNG")
            payload = file.getvalue()
        self._send(task, payload, properties)

    def _send(self, task: Task, payload: bytes, properties: Properties) -> None:
        properties.ResponseTopic = f"{self._answers}/{task.task}"
        properties.CorrelationData = task.task.encode()
        topic = f"{self._prefix}/task/{self._application}/{self._name}/{task.task}"
        with self._lock:
            task.published_s = time.monotonic()
            self.tasks[task.task] = task
        self._client.publish(topic, payload, qos=1, properties=properties)

    def waiting(self, now_s: float) -> list[Task]:
        """Return the tasks that may still get an answer."""
        with self._lock:
            return [
                task
                for task in self.tasks.values()
                if not task.answers and now_s < task.published_s + task.deadline_ms / 1000 + PATIENCE_S
            ]

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _more: object
    ) -> None:
        if reason.is_failure:
            self._ready.put(str(reason))
        else:  # on every connect: the broker may have forgotten us
            client.subscribe(f"{self._answers}/+", qos=1)

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        now = time.monotonic()
        with self._lock:
            task = self.tasks.get(message.topic.rpartition("/")[2])
            if task is not None:
                task.take(decode(message), now)


def send_at_once(_client: mqtt.Client, _data: object, opened: Any) -> None:  # noqa: ANN401 - a socket
    """Else a small packet waits until the one before is acknowledged: up to 40 ms for each task."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def decode(message: mqtt.MQTTMessage) -> dict[str, Any]:
    """Decode an answer: msgpack if the task was, otherwise JSON."""
    packed = getattr(message.properties, "ContentType", "") == "application/msgpack"
    answer: dict[str, Any] = msgpack.unpackb(message.payload) if packed else json.loads(message.payload)
    return answer


def draw(random_: random.Random, number: int, arguments: argparse.Namespace, labels: NDArray[Any]) -> Task:
    """Return a random task. `labels` are those of the samples that were drawn for it."""
    form = (
        "png"
        if len(labels) == 1 and random_.random() < arguments.png_share
        else random_.choice(["msgpack", "json"])
    )
    tight = arguments.tight_ms + arguments.tight_ms_per_image * len(labels)
    return Task(
        client=arguments.name,
        task=f"t{number:05d}",
        format=form,
        batch=len(labels),
        deadline_ms=round(tight * log_uniform(random_, arguments.tightest, arguments.loosest), 1),
        labels=[int(label) for label in labels],
        published_s=0.0,
    )


def log_uniform(random_: random.Random, smallest: float, greatest: float) -> float:
    """Return a log-uniform random number between the two."""
    return math.exp(random_.uniform(math.log(smallest), math.log(greatest)))


def run(sensor: Sensor, arguments: argparse.Namespace) -> None:
    """Publish all tasks, at the moments of a Poisson process, and wait for the last answers."""
    with np.load(arguments.samples, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    random_ = random.Random(arguments.seed)
    started = next_at = shown_at = time.monotonic()
    for number in range(arguments.tasks):
        next_at += random_.expovariate(arguments.rate)
        size = round(log_uniform(random_, 1, arguments.batch_max))
        chosen = random_.choices(range(len(images)), k=size)
        task = draw(random_, number, arguments, labels[chosen])
        time.sleep(max(0.0, next_at - time.monotonic()))
        sensor.publish(task, images[chosen])
        if time.monotonic() - shown_at > PROGRESS_EVERY_S:
            shown_at = time.monotonic()
            print(f"{shown_at - started:5.0f} s: {describe(list(sensor.tasks.values()))}", flush=True)
    while sensor.waiting(time.monotonic()):
        time.sleep(0.05)


def describe(tasks: list[Task]) -> str:
    """Return one line on the answers so far."""
    states = Counter(task.status or "waiting" for task in tasks)
    answered = [task for task in tasks if task.status == "answered"]
    decisions = Counter(task.decision for task in answered)
    images = sum(task.batch for task in answered)
    accuracy = f"{sum(task.right for task in answered) / images:.4f}" if images else "-"
    return (
        f"{len(tasks)} sent, "
        + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        + f"; on time {sum(task.on_time for task in answered)}, accuracy {accuracy}; decisions "
        + (", ".join(f"{count} {name}" for name, count in decisions.most_common()) or "-")
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--broker", default="mqtt://127.0.0.1:1883", help="mqtt:// or mqtts:// URL")
    add(
        "--username",
        default=os.environ.get("SPLITPLACE_USERNAME"),
        help="user at the broker; the password stands in SPLITPLACE_PASSWORD",
    )
    add("--ca-file", help="certificate authority for mqtts://")
    add("--prefix", default="splitplace/v1", help="topic prefix")
    add("--name", default=f"sensor-{random.randrange(16**6):06x}", help="of this sensor")
    add("--application", default="mnist")
    add("--samples", type=Path, required=True, help=".npz with images (uint8 [N, height, width]) and labels")
    add("--tasks", type=int, default=20, help="how many to send")
    add("--rate", type=float, default=2.0, help="tasks a second, on average")
    add("--batch-max", type=int, default=128, help="largest batch; small ones are more frequent")
    add("--tight-ms", type=float, default=25.0, help="a tight deadline is this, ...")
    add("--tight-ms-per-image", type=float, default=1.3, help="... and this for every image of the batch")
    add("--tightest", type=float, default=0.75, help="deadlines are tight ones times a factor from this ...")
    add("--loosest", type=float, default=25.0, help="... to this, drawn log-uniformly")
    add("--png-share", type=float, default=0.5, help="of the tasks with one image, sent as bare PNG")
    add("--seed", type=int, default=0)
    add("--report", type=Path, help="JSON file for the outcome of every task")
    return parser.parse_args(argv)


def main() -> None:
    """Run the sensor. Exit with 0 if every task got exactly one answer."""
    arguments = parse()
    sensor = Sensor(arguments)
    try:
        sensor.connect()
        run(sensor, arguments)
    except (ConnectionError, OSError) as error:
        sys.exit(f"{arguments.broker.rpartition('@')[2]}: {error}")  # without user name and password
    finally:
        sensor.close()
    tasks = list(sensor.tasks.values())
    print(describe(tasks))
    if arguments.report:
        arguments.report.write_text(json.dumps([asdict(task) for task in tasks]))
    sys.exit(any(task.answers != 1 for task in tasks))


if __name__ == "__main__":
    main()
