"""The state of a learner on disk: one small JSON file, replaced at once.

A file that cannot be used is set aside, and the learner starts afresh. A disk that does not take the file
costs the latest learning, and nothing else.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from splitplace.storage.replace import replace_file
from splitplace.storage.set_aside import check_folder, set_aside

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
        self._unusable = ""
        self._unsaved = ""

    @property
    def trouble(self) -> str:
        """What is wrong with the file, as a sentence; empty if all is well."""
        return "; ".join(filter(None, [self._unusable, self._unsaved]))

    async def restore(self, warm_start: Path | None = None) -> None:
        """Restore the learner from the file, or from `warm_start` if the file is missing or unusable.

        Raises:
            ConfigurationError: The file's folder is none, or not ours to write to.
        """
        await asyncio.to_thread(check_folder, self._path.parent, "--state-dir")
        try:
            is_restored = await self._restore_from(self._path)
        except ValueError as error:
            is_restored = False
            self._unusable = await asyncio.to_thread(_put_away, self._path, str(error))
            log.warning("%s", self._unusable)
        if not is_restored and warm_start is not None:
            try:
                await self._restore_from(warm_start)
            except ValueError as error:
                log.warning("%s is not usable, starting afresh: %s", warm_start, error)

    async def _restore_from(self, path: Path) -> bool:
        """Return whether there was such a file. Raises ValueError if it is not usable."""
        state = await asyncio.to_thread(read, path)
        if not state:
            return False
        try:
            self._learner.restore(state)
        except Exception as error:
            with contextlib.suppress(Exception):
                self._learner.restore(self._saved)  # what was restored in part
            raise ValueError(str(error) or repr(error)) from error
        return True

    async def save(self) -> None:
        """Write the state if it has changed since the last time. A failure is logged once until one works."""
        state = self._learner.state()
        if state == self._saved and not self._unsaved:
            return
        try:
            await asyncio.to_thread(save, self._path, state)
        except (OSError, ValueError) as error:
            if not self._unsaved:
                log.warning("cannot save the learnt state to %s: %s; trying on", self._path, error)
            self._unsaved = f"the learnt state is not saved: {self._path}: {error}"
        else:
            if self._unsaved:
                log.warning("the learnt state is saved again to %s", self._path)
            self._unsaved = ""
            self._saved = state


def _put_away(path: Path, reason: str) -> str:
    """Set a broken file aside. Return what was done. Blocks."""
    try:
        target = set_aside(path)
    except OSError as error:
        return f"{path} is not usable, and stays ({error.strerror}); started afresh: {reason[:300]}"
    return f"{path} is not usable; started afresh, it is kept as {target.name}: {reason[:300]}"


def read(path: Path) -> dict[str, JsonValue]:
    """Return what was saved, or nothing if there is no file. Blocks. Raises ValueError if it is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
        raise ValueError(f"not of version {_VERSION}")
    return content


def load(path: Path) -> dict[str, JsonValue]:
    """Return what was saved, or nothing if it cannot be used (the reason is logged). Blocks."""
    try:
        return read(path)
    except ValueError as error:
        log.warning("%s is not usable: %s", path, error)
        return {}


def save(path: Path, state: Mapping[str, JsonValue]) -> None:
    """Write the state in place of what the file held. Blocks. Raises OSError."""
    replace_file(path, json.dumps({"version": _VERSION, **state}).encode())
