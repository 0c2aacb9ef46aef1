"""Tasks of several pictures: each for an input of its name, bounded together as those of one."""

import base64
import io
import json
from typing import Any

import msgpack
import numpy as np
import pytest
from PIL import Image

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.messages.application import Application
from splitplace.messages.limits import MAX_IMAGE_PIXELS
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.arrays import arrays_of
from splitplace.services.gateway.intake import (
    Submission,
    ValidTask,
    announced_batch,
    announced_bytes,
    decode,
    identify,
    read,
)
from splitplace.services.gateway.refusals import TaskRefusedError
from tests.support.bundle_applications import app_of

LEFT = NamedTensor(name="left", spec=TensorSpec(dtype="uint8", shape=(3, 4, 6)))
RIGHT = NamedTensor(name="right", spec=TensorSpec(dtype="uint8", shape=(1, 8, 8)))
STATE = NamedTensor(name="state", spec=TensorSpec(dtype="float32", shape=(2,)))
FOUND = NamedTensor(name="found", spec=TensorSpec(dtype="float32", shape=(1,)))
APP: Application = app_of((LEFT, RIGHT, STATE), (FOUND,), outputs=(FOUND,), labels=())


def png(colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RED, GREY = png((200, 0, 0)), png((90, 90, 90), (8, 8))
NUMBERS = np.array([[1.5, -2.0]], np.float32)
STATE_SENT = {"name": "state", "data": NUMBERS.tobytes()}


def submission(body: dict[str, Any], *, packed: bool = True) -> Submission:
    def in_base64(value: object) -> str:
        assert isinstance(value, bytes)
        return base64.b64encode(value).decode()

    payload = msgpack.packb(body) if packed else json.dumps(body, default=in_base64).encode()
    raw = RawReceived({"application": "app", "client": "camera", "task": "1"}, payload, RequestProperties())
    return read(raw, identify(raw))


def task(body: dict[str, Any], *, packed: bool = True) -> ValidTask:
    return decode(submission(body, packed=packed), APP)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "named",
    [
        [{"name": "right", "images": [GREY]}, {"name": "left", "images": [RED]}],
        {"left": {"image": RED}, "right": {"images": GREY}},
    ],
    ids=["list", "map"],
)
def test_each_picture_becomes_the_input_of_its_name(named: Any, *, packed: bool) -> None:
    more: Any = {"state": {"data": NUMBERS.tobytes()}} if isinstance(named, dict) else [STATE_SENT]
    tensors = {**named, **more} if isinstance(named, dict) else [*named, *more]
    found = arrays_of(APP, task({"tensors": tensors}, packed=packed).inputs)
    assert found["left"][0, :, 0, 0].tolist() == [200, 0, 0]
    assert (found["right"].shape, found["right"].min(), found["right"].max()) == ((1, 1, 8, 8), 90, 90)
    assert np.array_equal(found["state"], NUMBERS)


def test_the_first_picture_may_come_without_a_name_beside_others_and_arrays() -> None:
    named = arrays_of(
        APP, task({"images": [RED], "tensors": [{"name": "right", "image": GREY}, STATE_SENT]}).inputs
    )
    grey = np.full((1, 1, 8, 8), 90, np.uint8)
    array = {"name": "right", "data": grey.tobytes()}
    as_array = arrays_of(APP, task({"images": [RED], "tensors": [array, STATE_SENT]}).inputs)
    for name, expected in named.items():
        assert np.array_equal(as_array[name], expected)


def test_pictures_of_a_batch_are_counted_and_announced_before_they_are_decoded() -> None:
    numbers = {"name": "state", "data": np.zeros((2, 2), np.float32).tobytes()}
    tensors = [{"name": "left", "images": [RED, RED]}, {"name": "right", "images": [GREY, GREY]}, numbers]
    sent = submission({"tensors": tensors})
    assert announced_batch(sent, APP) == 2
    assert announced_bytes(sent, APP) == decode(sent, APP).inputs.nbytes


def test_a_warning_names_the_input_whose_picture_was_changed() -> None:
    wide = png((1, 2, 3), (60, 40))
    tensors = [
        {"name": "left", "image": wide},
        {"name": "right", "image": png((5, 5, 5), (16, 8))},
        STATE_SENT,
    ]
    (warning,) = task({"tensors": tensors}).warnings
    assert warning == "right: the picture was stretched from 16 x 8 to 8 x 8"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"tensors": [{"name": "state", "image": RED}]}, "input 'state' takes float32 .2., not pictures"),
        ({"tensors": [{"name": "up", "image": RED}]}, "no input 'up'; there is: left, right, state"),
        ({"tensors": [{"name": "left", "image": RED, "data": b"1"}]}, "give `data` .* or `images`"),
        ({"tensors": [{"name": "left"}]}, "give `data` .* or `images`"),
        ({"tensors": [{"name": "left", "images": []}]}, "tensors.0.images"),
        ({"images": [RED], "tensors": [{"name": "left", "image": RED}]}, "'left' is given twice"),
        ({"tensors": [{"name": "left", "image": RED}] * 2}, "'left' is given twice"),
        ({"tensors": [{"name": "left", "image": RED}, {"name": "left", "data": b"1" * 72}]}, "given twice"),
        ({"tensors": [{"name": "left", "image": b"no picture"}]}, "not a readable"),
        (
            {
                "tensors": [
                    {"name": "left", "images": [RED] * 2},
                    {"name": "right", "image": GREY},
                    STATE_SENT,
                ]
            },
            "different numbers of images: 2 of left, 1 of right",
        ),
        ({"images": [RED]}, "the inputs right, state are missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pictures_that_do_not_fit_are_refused_by_name(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskRefusedError, match=reason):
        task(body)


def test_pixels_of_all_inputs_count_together() -> None:
    side = int((MAX_IMAGE_PIXELS * 0.6) ** 0.5)
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    large = file.getvalue()
    with pytest.raises(TaskRefusedError, match="pixels to decode; send several tasks"):
        task({"tensors": [{"name": "left", "image": large}, {"name": "right", "image": large}, STATE_SENT]})


def test_other_pictures_are_another_task_and_large_ones_are_read_in_a_thread() -> None:
    sent = [submission({"tensors": [{"name": "left", "image": each}]}) for each in (RED, GREY, RED)]
    assert sent[0].content == sent[2].content != sent[1].content
    assert not sent[0].is_costly
    assert submission({"tensors": [{"name": "left", "image": png((0, 0, 0), (400, 400))}]}).is_costly
