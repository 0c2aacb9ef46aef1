"""A log of decisions and ends of tasks, for `splitplace replay`: JSON lines of topic and payload.

`mosquitto_sub -t 'splitplace/v1/job/#' -F %J` writes lines that are read as well.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pydantic_core import from_json

from splitplace.bus.connection import parse
from splitplace.errors import SplitPlaceError
from splitplace.messages.base import Message
from splitplace.messages.earlier import complete_decision
from splitplace.messages.limits import MAX_CONTROL_BYTES
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.messages.topics import JOB_DECIDED, JOB_FINISHED

MAX_LINE_BYTES = 2 * MAX_CONTROL_BYTES
_LEVELS = 3
"""Of a job's topic, without the prefix."""


class RecordingError(SplitPlaceError):
    """The log cannot be written; the text says why."""


class Recorder:
    """Writes decisions and ends as they come, each at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def take(self, topic: str, message: Message) -> None:
        """Writes it where it is a decision or an end. Raises RecordingError.

        Args:
            topic: it came on, with or without prefix.
            message: what came.
        """
        if isinstance(message, TaskDecided | TaskFinished):
            try:
                self._file.write(f'{{"topic":{json.dumps(topic)},"payload":{message.model_dump_json()}}}\n')
                self._file.flush()
            except OSError as error:
                raise _unwritable(self._file.name, error) from error


@contextlib.contextmanager
def recording(path: Path | None) -> Iterator[Recorder | None]:
    """Adds to a file while the block runs; without a path there is no recorder. Raises RecordingError."""
    if path is None:
        yield None
        return
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise _unwritable(str(path), error) from error
    with file:
        yield Recorder(file)


def _unwritable(name: str, error: OSError) -> RecordingError:
    return RecordingError(f"{name} cannot be written: {error.strerror}")


class Log:
    """Reads what was recorded, line by line. Lines of other topics are ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.broken = 0
        """Lines so far that are neither."""

    def events(self) -> Iterator[TaskDecided | TaskFinished]:
        """Decisions and ends in the order in which they were heard. Raises OSError."""
        with self._path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                try:
                    event = _event(line)
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.broken += 1
                else:
                    if event is not None:
                        yield event


def _event(line: bytes) -> TaskDecided | TaskFinished | None:
    """What stands in a line, checked as if it came from the broker; None for another topic's message."""
    content = from_json(line)
    name = "/".join(content["topic"].split("/")[-_LEVELS:])
    if JOB_DECIDED.match(name) is not None:
        payload = complete_decision(json.dumps(content["payload"]).encode())
        return parse(JOB_DECIDED, name, payload).message
    if JOB_FINISHED.match(name) is not None:
        return parse(JOB_FINISHED, name, json.dumps(content["payload"]).encode()).message
    return None
