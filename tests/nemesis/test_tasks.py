"""The generator sends what real sensors send; the poisons are what their names say."""

import base64
import io
import json
import random

import msgpack
import numpy as np
import pytest
import zstandard
from PIL import Image

from nemesis.poison import POISONS, poison_named
from nemesis.sensors import decoded
from nemesis.tasks import ADDRESSINGS, FORMS, LARGEST_BATCH, Form, Publication, Task, draw, publication

SAMPLES = {"mnist": 100, "fashionmnist": 50}
IMAGES = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 1, 28, 28)


def task(form: Form, addressing: str = "topic") -> Task:
    assert addressing in {"topic", "properties", "body"}
    return Task("s", "t1", "mnist", form, addressing, (0, 1), 500.0, response_topic=False)  # type: ignore[arg-type]


def body_of(message: Publication) -> dict[str, object]:
    body: dict[str, object] = (
        json.loads(message.payload)
        if message.content_type == "application/json"
        else msgpack.unpackb(message.payload)
    )
    return body


def test_equal_seeds_draw_equal_tasks() -> None:
    first, second = (draw(random.Random(4), "s", "t", SAMPLES) for _ in range(2))
    assert first == second


def test_drawn_tasks_cover_every_format_addressing_batch_and_deadline() -> None:
    rng = random.Random(1)
    tasks = [draw(rng, "s", f"t{number}", SAMPLES) for number in range(3000)]
    assert {task.form for task in tasks} == set(FORMS)
    assert {task.addressing for task in tasks} == set(ADDRESSINGS)
    assert {len(task.inputs) for task in tasks} == set(range(1, LARGEST_BATCH + 1))
    assert min(task.deadline_ms for task in tasks) < 20
    assert max(task.deadline_ms for task in tasks) > 10_000
    assert {task.response_topic for task in tasks} == {True, False}
    assert all(index < SAMPLES[task.application] for task in tasks for index in task.inputs)
    assert all(task.addressing != "body" for task in tasks if task.form == "png")


@pytest.mark.parametrize("form", FORMS)
def test_every_format_carries_the_samples_unchanged(form: Form) -> None:
    message = publication(task(form), IMAGES)
    if form == "png":
        pictures = [message.payload]
    else:
        body = body_of(message)
        assert body["deadline_ms"] == 500.0
        if not form.endswith("images"):
            content = body["inputs"]
            raw = base64.b64decode(content) if isinstance(content, str) else content
            assert isinstance(raw, bytes)
            assert (zstandard.decompress(raw) if form.endswith("zstd") else raw) == IMAGES.tobytes()
            assert body["shape"] == [2, 1, 28, 28]
            return
        images = body["images"]
        assert isinstance(images, list)
        pictures = [base64.b64decode(image) if isinstance(image, str) else image for image in images]
        assert len(pictures) == 2
    assert (np.asarray(Image.open(io.BytesIO(pictures[0]))) == IMAGES[0, 0]).all()


def test_names_stand_in_topic_properties_or_body() -> None:
    assert publication(task("json-array", "topic"), IMAGES).topic.endswith("/task/mnist/s/t1")
    by_properties = publication(task("json-array", "properties"), IMAGES)
    assert by_properties.user == (("client", "s"), ("task", "t1"))
    assert body_of(publication(task("msgpack-array", "body"), IMAGES))["client"] == "s"


def test_answers_are_read_as_json_and_msgpack() -> None:
    answer = {"status": "answered"}
    assert decoded(json.dumps(answer).encode()) == answer
    assert decoded(msgpack.packb(answer)) == answer


def test_every_poison_has_a_name_of_its_own_and_can_be_made() -> None:
    assert len({poison.name for poison in POISONS}) == len(POISONS)
    assert poison_named("png-bomb") is next(p for p in POISONS if p.name == "png-bomb")
    for poison in POISONS:
        if poison.name in {"zstd-bomb", "many-bombs", "seven-bombs", "msgpack-map-of-ints"}:
            continue  # they take seconds
        assert len(poison.make().payload) < 8 * 1024 * 1024


def test_the_picture_bomb_is_small_and_huge() -> None:
    content = poison_named("png-bomb").make().payload
    assert len(content) < 4096
    assert Image.open(io.BytesIO(content)).size == (4096, 4096)
