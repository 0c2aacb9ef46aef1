"""The last pictures of tasks with their answers, where that is allowed. Bounded; pure but for decoding."""

import io
from collections import OrderedDict
from dataclasses import dataclass

import msgpack
from PIL import Image

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.commands.shared.drawing import DrawingError, drawn
from splitplace.messages.findings import AnyPrediction
from splitplace.messages.names import sensor_key, sensor_part, task_key
from splitplace.messages.task import Answer
from splitplace.messages.topics import ANSWER, TASK_NAMED, TASK_OF_CLIENT
from splitplace.services.gateway.body import parse
from splitplace.services.gateway.picture_files import is_file
from splitplace.services.gateway.refusals import TaskRefusedError

MAX_BYTES = 2_000_000
"""Largest size of a picture; larger ones are left out."""
MAX_KEPT = 200
MAX_KEPT_BYTES = 16_000_000
MAX_PIXELS = 16_000_000
_SIDE = 640


@dataclass(slots=True)
class _Kept:
    picture: bytes
    prediction: AnyPrediction | None = None


class Gallery:
    """Pictures by task, and the last task of each sensor."""

    def __init__(self) -> None:
        """No picture was seen."""
        self._tasks: OrderedDict[str, _Kept] = OrderedDict()
        self._last: dict[str, str] = {}
        self._bytes = 0

    def take(self, name: str, payload: bytes) -> bool:
        """Take in what came on a topic without prefix. Return whether it was a task or an answer."""
        if name.startswith("task/"):
            found = TASK_NAMED.match(name) or TASK_OF_CLIENT.match(name)
            picture = first_picture(payload) if found and len(payload) <= MAX_BYTES else None
            if found and picture is not None:
                self._add(found["client"], found.get("task", ""), picture)
            return True
        found = ANSWER.match(name)
        if found is None:
            return False
        kept = self._tasks.get(_key(found["client"], found["task"])) or self._tasks.get(
            _key(found["client"], "")
        )
        answer = _answer(payload) if kept is not None else None
        if kept is not None and answer is not None and answer.predictions:
            kept.prediction = answer.predictions[0]
        return True

    def has(self, task: str) -> bool:
        """Whether there is a picture of a task, by its key."""
        return sensor_key(task) in self._tasks

    def last_of(self, sensor: str) -> str:
        """Return the key of the last picture of a sensor; empty if there is none."""
        return self._last.get(sensor_part(sensor), "")

    def drawn(self, key: str) -> bytes | None:
        """Return the picture of a task with its answer drawn on it, as a JPEG. Blocks.

        Raises:
            DrawingError: it cannot be read.
        """
        kept = self._tasks.get(sensor_key(key))
        if kept is None:
            return None
        try:
            with Image.open(io.BytesIO(kept.picture)) as opened:
                pixels = opened.width * opened.height
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DrawingError("not a readable picture") from error
        if pixels > MAX_PIXELS:
            raise DrawingError("the picture is too large to be shown")
        picture = drawn(kept.picture, kept.prediction)
        picture.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=85)
        return file.getvalue()

    def _add(self, client: str, task: str, picture: bytes) -> None:
        key = _key(client, task)
        old = self._tasks.pop(key, None)
        self._tasks[key] = _Kept(picture)
        self._bytes += len(picture) - (len(old.picture) if old else 0)
        self._last.pop(sensor_part(client), None)
        self._last[sensor_part(client)] = key
        while len(self._tasks) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            gone, kept = self._tasks.popitem(last=False)
            self._bytes -= len(kept.picture)
            sensor = gone.partition(".")[0]
            if self._last.get(sensor) == gone:
                del self._last[sensor]


def _key(client: str, task: str) -> str:
    return sensor_key(task_key(client, task, ""))


def _answer(payload: bytes) -> Answer | None:
    try:
        if payload.startswith(b"{"):
            return Answer.model_validate_json(payload)
        return Answer.model_validate(msgpack.unpackb(payload, use_list=False))
    except (ValueError, msgpack.UnpackException):
        return None


def first_picture(payload: bytes) -> bytes | None:
    """Return the first picture of a task, as the gateway would take it; None if it has none."""
    try:
        images = parse(RawReceived({}, payload, RequestProperties())).request.images
    except TaskRefusedError:
        return None
    return images[0] if images and is_file(images[0]) else None
