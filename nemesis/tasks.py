"""Real tasks as sensors send them: shipped samples in every format and way of naming, drawn from a seed."""

import base64
import io
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgpack
import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image

PREFIX = "splitplace/v1"
LARGEST_BATCH = 32
RESPONSE_TOPICS = 0.2
"""Share of the tasks that ask for their answer on a topic of their own."""
SMALL_BATCHES = 0.7
"""Share of the batches that have at most four inputs."""
DEADLINES_MS = ((1, 20), (300, 3000), (3000, 15_000))
"""Hopeless, ordinary and loose ones: from, to."""
REPLIES = "nemesis-replies"
"""First level of the response topics; below the product's own prefix it would not honour them."""

Form = Literal["png", "json-images", "json-array", "msgpack-images", "msgpack-array", "msgpack-zstd"]
FORMS: tuple[Form, ...] = (
    *("png", "json-images", "json-array"),
    *("msgpack-images", "msgpack-array", "msgpack-zstd"),
)
Addressing = Literal["topic", "properties", "body"]
ADDRESSINGS: tuple[Addressing, ...] = ("topic", "properties", "body")


@dataclass(frozen=True)
class Task:
    """A valid task, before it becomes a message."""

    client: str
    name: str
    application: str
    form: Form
    addressing: Addressing
    inputs: tuple[int, ...]
    deadline_ms: float
    response_topic: bool

    @property
    def key(self) -> str:
        """The task's name in the history."""
        return f"{self.client}.{self.name}"

    @property
    def style(self) -> str:
        """Format and addressing, for the history."""
        return f"{self.form}/{self.addressing}{'/response' if self.response_topic else ''}"


@dataclass(frozen=True)
class Publication:
    """An MQTT message that is ready to be sent."""

    topic: str
    payload: bytes = field(repr=False)
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()
    retain: bool = False


def draw(
    rng: random.Random, client: str, name: str, applications: Mapping[str, int], *, easy: bool = False
) -> Task:
    """Draw a task.

    Args:
        rng: source of chance.
        client: name of the sensor.
        name: the sensor's id for the task.
        applications: number of samples by name of the application.
        easy: one input and a loose deadline.
    """
    application = rng.choice(sorted(applications))
    form: Form = "png" if easy else rng.choice(FORMS)
    batch = 1 if form == "png" or easy else _batch(rng)
    return Task(
        client=client,
        name=name,
        application=application,
        form=form,
        addressing=rng.choice(ADDRESSINGS[:2] if form == "png" else ADDRESSINGS),
        inputs=tuple(rng.randrange(applications[application]) for _ in range(batch)),
        deadline_ms=10_000.0 if easy else _deadline_ms(rng),
        response_topic=not easy and rng.random() < RESPONSE_TOPICS,
    )


def _batch(rng: random.Random) -> int:
    """Mostly small, up to `LARGEST_BATCH`."""
    return rng.randint(1, 4) if rng.random() < SMALL_BATCHES else rng.randint(5, LARGEST_BATCH)


def _deadline_ms(rng: random.Random) -> float:
    """From hopeless to loose."""
    shortest, longest = rng.choices(DEADLINES_MS, weights=(1, 6, 3))[0]
    return float(rng.randint(shortest, longest))


def png(image: NDArray[np.uint8]) -> bytes:
    """Return a picture of shape `[channels, height, width]` as PNG."""
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def publication(task: Task, images: NDArray[np.uint8]) -> Publication:
    """Return the message of a task; `images` are its inputs, shape `[batch, channels, height, width]`."""
    body: dict[str, Any] = {"deadline_ms": task.deadline_ms}
    names = {"client": task.client, "task": task.name}
    topic = f"{PREFIX}/task/{task.application}"
    user: tuple[tuple[str, str], ...] = ()
    if task.addressing == "topic":
        topic += f"/{task.client}/{task.name}"
    elif task.addressing == "properties":
        user = tuple(names.items())
    else:
        body |= names
    if task.form == "png":
        user = (*user, ("deadline_ms", f"{task.deadline_ms:g}"))
        payload, content_type = png(images[0]), "image/png"
    elif task.form.startswith("json"):
        payload, content_type = _json(body | _inputs(task.form, images)), "application/json"
    else:
        payload, content_type = msgpack.packb(body | _inputs(task.form, images)), "application/msgpack"
    return Publication(
        topic=topic,
        payload=payload,
        content_type=content_type,
        response_topic=f"{REPLIES}/{task.client}/{task.name}" if task.response_topic else None,
        correlation=task.name.encode() if task.response_topic else None,
        user=user,
    )


def _inputs(form: Form, images: NDArray[np.uint8]) -> dict[str, Any]:
    if form.endswith("images"):
        return {"images": [png(image) for image in images]}
    array: dict[str, Any] = {"inputs": images.tobytes(), "shape": list(images.shape), "dtype": "uint8"}
    if form.endswith("zstd"):
        array |= {"inputs": zstandard.compress(images.tobytes()), "codec": "zstd"}
    return array


def _json(body: Mapping[str, Any]) -> bytes:
    def text(value: bytes) -> str:
        return base64.b64encode(value).decode()

    return json.dumps(body, default=text).encode()
