"""What a service has learnt, on disk: one small JSON file, replaced at once."""

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

log = logging.getLogger(__name__)

MAX_BYTES = 16 * 1024 * 1024
_VERSION = 1


class Learner(Protocol):
    """Whoever learns something that is worth keeping."""

    def state(self) -> Mapping[str, JsonValue]:
        """What was learnt."""
        ...

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Take up what was learnt earlier. Raises ValueError where that is something else."""
        ...


class StateFile:
    """A learner's state in a file. Reads and writes in threads."""

    def __init__(self, path: Path, learner: Learner) -> None:
        """A memory of what the learner knows beyond its present state, which is not written by itself."""
        self._path = path
        self._learner = learner
        self._saved = learner.state()

    async def restore(self, warm_start: Path | None = None) -> None:
        """The learner takes up what was saved; where that cannot be used, what another run learnt."""
        for path in (self._path, warm_start):
            state = await asyncio.to_thread(load, path) if path is not None else {}
            if state:
                try:
                    self._learner.restore(state)
                except ValueError as error:
                    log.warning("%s is not usable, starting anew: %s", path, error)
                else:
                    return

    async def save(self) -> None:
        """Write what was learnt since the last time, if anything. A disk that refuses is logged."""
        state = self._learner.state()
        if state == self._saved:
            return
        try:
            await asyncio.to_thread(save, self._path, state)
        except OSError as error:
            log.warning("what was learnt cannot be saved to %s: %s", self._path, error)
        else:
            self._saved = state


def load(path: Path) -> dict[str, JsonValue]:
    """What was saved; empty where there is nothing that can be used (then why is logged). Blocks."""
    try:
        if path.stat().st_size > MAX_BYTES:
            log.warning("%s is larger than %d bytes; starting anew", path, MAX_BYTES)
            return {}
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read, starting anew: %s", path, error)
        return {}
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
        log.warning("%s is not of version %d; starting anew", path, _VERSION)
        return {}
    return content


def save(path: Path, state: Mapping[str, JsonValue]) -> None:
    """Write the state; whoever reads meanwhile sees the old file or the new one. Blocks. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps({"version": _VERSION, **state}))
    partial.replace(path)
