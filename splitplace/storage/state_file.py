"""The state of a learner on disk: one small JSON file, replaced at once."""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from splitplace.storage.replace import replace_file

log = logging.getLogger(__name__)

MAX_BYTES = 16 * 1024 * 1024
_VERSION = 1


class Learner(Protocol):
    """A policy, or a service around it, that learns something worth keeping."""

    def state(self) -> Mapping[str, JsonValue]:
        """Return the learnt state."""
        ...

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Continue from an earlier state. Raises ValueError if it is not one."""
        ...


class StateFile:
    """A learner's state in a file. Reads and writes in threads."""

    def __init__(self, path: Path, learner: Learner) -> None:
        """Name the file. The learner's present state counts as saved already."""
        self._path = path
        self._learner = learner
        self._saved = learner.state()

    async def restore(self, warm_start: Path | None = None) -> None:
        """Restore the learner from the file, or from `warm_start` if the file is missing or unusable."""
        for path in (self._path, warm_start):
            state = await asyncio.to_thread(load, path) if path is not None else {}
            if state:
                try:
                    self._learner.restore(state)
                except ValueError as error:
                    log.warning("%s is not usable, starting afresh: %s", path, error)
                else:
                    return

    async def save(self) -> None:
        """Write the state if it has changed since the last time. A failure to write is logged."""
        state = self._learner.state()
        if state == self._saved:
            return
        try:
            await asyncio.to_thread(save, self._path, state)
        except OSError as error:
            log.warning("cannot save the learnt state to %s: %s", self._path, error)
        else:
            self._saved = state


def load(path: Path) -> dict[str, JsonValue]:
    """Return what was saved, or nothing if it cannot be used (the reason is logged). Blocks."""
    try:
        if path.stat().st_size > MAX_BYTES:
            log.warning("%s is larger than %d bytes; starting afresh", path, MAX_BYTES)
            return {}
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, starting afresh: %s", path, error)
        return {}
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
        log.warning("%s is not of version %d; starting afresh", path, _VERSION)
        return {}
    return content


def save(path: Path, state: Mapping[str, JsonValue]) -> None:
    """Write the state in place of what the file held. Blocks. Raises OSError."""
    replace_file(path, json.dumps({"version": _VERSION, **state}).encode())
