"""A log of decisions and task ends for `splitplace replay`: JSON lines of topic and payload.

`splitplace watch --json` and `mosquitto_sub -t 'splitplace/v1/job/#' -F %J` write lines that `Log` reads too.
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
from splitplace.messages.earlier import complete_decision, complete_event
from splitplace.messages.limits import MAX_CONTROL_BYTES
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.messages.topics import JOB_DECIDED, JOB_FINISHED

MAX_LINE_BYTES = 2 * MAX_CONTROL_BYTES
_LEVELS = 3
"""Levels of a job's topic, without the prefix."""


class RecordingError(SplitPlaceError):
    """The log cannot be written."""


class Recorder:
    """Write decisions and task ends as they come, and flush each."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def take(self, topic: str, message: Message) -> None:
        """Write a message if it is a decision or a task end. Raises RecordingError.

        Args:
            topic: where it arrived, with or without prefix.
            message: any message.
        """
        if isinstance(message, TaskDecided | TaskFinished):
            try:
                self._file.write(f'{{"topic":{json.dumps(topic)},"payload":{message.model_dump_json()}}}\n')
                self._file.flush()
            except OSError as error:
                raise _unwritable(self._file.name, error) from error


@contextlib.contextmanager
def recording(path: Path | None) -> Iterator[Recorder | None]:
    """Append to a file inside the block. No path, no recorder. Raises RecordingError."""
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
    return RecordingError(f"{name}: cannot be written: {error.strerror}")


class Log:
    """Read a recording line by line. Lines of other topics are ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.broken = 0
        """Number of lines so far that are not valid."""

    def events(self) -> Iterator[TaskDecided | TaskFinished]:
        """Return decisions and task ends in the order of the file. Raises OSError."""
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
    """Parse a line as strictly as a message from the broker. Return None for another topic."""
    content = from_json(line)
    name = "/".join(content["topic"].split("/")[-_LEVELS:])
    if JOB_DECIDED.match(name) is not None:
        return parse(JOB_DECIDED, name, complete_decision(content["payload"])).message
    if JOB_FINISHED.match(name) is not None:
        return parse(JOB_FINISHED, name, complete_event(content["payload"])).message
    return None
