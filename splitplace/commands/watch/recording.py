"""A log of decisions, task ends and nodes for `replay` and `calibrate`: JSON lines of topic and payload.

`splitplace watch --json` and `mosquitto_sub -t 'splitplace/v1/job/#' -F %J` write lines that `Log` reads too.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic_core import from_json

from splitplace.bus.connection import parse
from splitplace.commands.watch.observation import CLUSTER_STATE
from splitplace.errors import SplitPlaceError
from splitplace.messages.base import Message
from splitplace.messages.cluster import ClusterState
from splitplace.messages.cluster_parts import ClusterAssembly
from splitplace.messages.earlier import complete_decision, complete_event
from splitplace.messages.limits import MAX_CONTROL_BYTES
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.messages.topics import CLUSTER_MEMBERS, CLUSTER_NODE, JOB_DECIDED, JOB_FINISHED

STATE_EVERY_S = 10.0
"""Seconds between two states of the cluster in a log."""

MAX_LINE_BYTES = 2 * MAX_CONTROL_BYTES
_LEVELS = 3
"""Levels of a job's topic, without the prefix."""


class RecordingError(SplitPlaceError):
    """The log cannot be written."""


class Recorder:
    """Write decisions and task ends as they come, states of the cluster now and then, and flush each."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._next_state_s = 0.0

    def take(self, topic: str, message: Message) -> None:
        """Write a message if it is a decision, a task end or a state that is due. Raises RecordingError.

        Args:
            topic: where it arrived, with or without prefix.
            message: any message.
        """
        now_s = self._clock()
        if isinstance(message, ClusterState) and now_s >= self._next_state_s:
            self._next_state_s = now_s + STATE_EVERY_S
        elif not isinstance(message, TaskDecided | TaskFinished):
            return
        where = json.dumps(topic)
        try:
            self._file.write(f'{{"at":{now_s:.3f},"topic":{where},"payload":{message.model_dump_json()}}}\n')
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
        for _, message in self.entries():
            if not isinstance(message, ClusterState):
                yield message

    def entries(self) -> Iterator[tuple[float | None, TaskDecided | TaskFinished | ClusterState]]:
        """Return the same and states of the cluster, each with its time in Unix seconds. Raises OSError.

        The time is None where the log does not tell it.
        """
        assembly = ClusterAssembly()
        with self._path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                try:
                    content = from_json(line)
                    event, at_s = _event(content, assembly), _time_of(content)
                except (ValueError, KeyError, TypeError, AttributeError):
                    self.broken += 1
                else:
                    if event is not None:
                        yield at_s, event


def _time_of(content: dict[str, Any]) -> float | None:
    """Return when a line was written, as `Recorder` or `mosquitto_sub -F %J` says."""
    at, text = content.get("at"), content.get("tst")
    if isinstance(at, int | float):
        return float(at)
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None


def _event(
    content: dict[str, Any], assembly: ClusterAssembly
) -> TaskDecided | TaskFinished | ClusterState | None:
    """Parse a line as strictly as a message from the broker. Return None for another topic.

    A state of the cluster is whole, or put together from its parts.
    """
    name = "/".join(content["topic"].split("/")[-_LEVELS:])
    if JOB_DECIDED.match(name) is not None:
        return parse(JOB_DECIDED, name, complete_decision(content["payload"])).message
    if name.endswith(CLUSTER_STATE):
        return ClusterState.model_validate_json(json.dumps(content["payload"]))
    if CLUSTER_NODE.match(name) is not None:
        return assembly.take(parse(CLUSTER_NODE, name, json.dumps(content["payload"]).encode()).message)
    if name.endswith(CLUSTER_MEMBERS.pattern):
        members = parse(CLUSTER_MEMBERS, CLUSTER_MEMBERS.pattern, json.dumps(content["payload"]).encode())
        return assembly.take(members.message)
    if JOB_FINISHED.match(name) is not None:
        return parse(JOB_FINISHED, name, complete_event(content["payload"])).message
    return None
