"""Prepared stages on this node's disk, by key, bounded and checked. Blocks: call it in a thread.

Each form is a folder named by its key, with the model, its weights, and a note of their sizes and hashes that
is written last. The folder is moved into place as a whole. A power cut leaves a whole form or none. Damage
that comes later is found by the hashes when a process first uses a form; it is then removed and made anew.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from splitplace.edge_node.stage.prepare import MODEL, WEIGHTS
from splitplace.edge_node.stage.processor import runtime_identity
from splitplace.messages.base import Part, Sha256
from splitplace.messages.pieces import ChainStage
from splitplace.storage.replace import move_into_place

FORMAT = 1
"""Version of the way in which stages are prepared. Raise it when that changes."""
_NOTE = "note.json"
_PARTIAL = ".partial"
_MAX_NOTE_BYTES = 4096


class _File(Part):
    name: str
    size: int
    sha256: Sha256


_NOTE_TYPE = TypeAdapter(Annotated[tuple[_File, ...], Field(min_length=1, max_length=2)])


def key_of(stage: ChainStage, identity: str | None = None) -> str:
    """Return the key of a stage's prepared form: a SHA-256 in hexadecimal.

    It covers the pieces, the head, ONNX Runtime's version and the processor's instructions.

    Args:
        stage: The stage.
        identity: Runtime and processor; by default those of this process.
    """
    about = f"{FORMAT}\n{identity or runtime_identity()}\n{stage.model_dump_json()}"
    return hashlib.sha256(about.encode()).hexdigest()


class PreparedForms:
    """A bounded cache: the least recently used forms make room."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open the cache, and remove what a crash left unfinished.

        Args:
            folder: Created if missing. No two processes may share it.
            max_bytes: Of all forms. A single larger one is kept until the next comes.

        Raises:
            OSError: The folder cannot be used.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._checked: dict[str, tuple[int, ...]] = {}
        """Forms whose hashes were right, and what the file system said of their files then."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)

    @property
    def size_bytes(self) -> int:
        """Size of all forms."""
        return sum(size for _, size in self._by_age())

    def find(self, key: str) -> Path | None:
        """Return the model file of a form; None if it is missing, or was damaged and is removed."""
        folder = self._folder / key
        if not (folder / _NOTE).exists():
            return None
        try:
            self._check(folder)
            now_ns = time.time_ns()
            os.utime(folder / _NOTE, ns=(now_ns, now_ns))
        except (OSError, ValueError):
            self._remove(folder)
            return None
        return folder / MODEL

    @contextmanager
    def making(self, key: str, keep: Collection[str] = ()) -> Iterator[Path]:
        """Give an empty folder for a new form, and keep its files when the block ends without an error.

        Args:
            key: Key of the form.
            keep: Keys of forms that are mapped: they stay, since removing them would free no space.

        Raises:
            OSError: It cannot be written.
        """
        partial = self._folder / f"{key}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            notes = tuple(_note(partial / name) for name in (MODEL, WEIGHTS) if (partial / name).exists())
            with (partial / _NOTE).open("xb") as file:
                file.write(_NOTE_TYPE.dump_json(notes))
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(partial)
            with self._lock:
                self._make_room({key, *keep}, sum(note.size for note in notes))
                final = self._folder / key
                shutil.rmtree(final, ignore_errors=True)
                move_into_place(partial, final)
                self._checked[key] = _seen(final, notes)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _check(self, folder: Path) -> None:
        """Compare the files with their note: the hashes once, later only what the file system says.

        Raises:
            ValueError: They are not what was written.
            OSError: They cannot be read.
        """
        with (folder / _NOTE).open("rb") as file:
            notes = _NOTE_TYPE.validate_json(file.read(_MAX_NOTE_BYTES))
        seen = _seen(folder, notes)
        if self._checked.get(folder.name) == seen:
            return
        for note in notes:
            if note.name not in {MODEL, WEIGHTS} or _note(folder / note.name, durably=False) != note:
                raise ValueError(f"{folder / note.name} is damaged")
        self._checked[folder.name] = seen

    def _make_room(self, keep: Collection[str], more_bytes: int) -> None:
        """Remove the least recently used forms until a new one fits."""
        forms = [(path, size) for path, size in self._by_age() if path.name not in keep]
        kept = sum(size for path, size in self._by_age() if path.name in keep)
        total = more_bytes + kept + sum(size for _, size in forms)
        for path, size in forms:
            if total <= self._max_bytes:
                return
            self._remove(path)
            total -= size

    def _remove(self, folder: Path) -> None:
        self._checked.pop(folder.name, None)
        with contextlib.suppress(OSError):  # without its note, what is left of it is no form
            (folder / _NOTE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _by_age(self) -> list[tuple[Path, int]]:
        """Return complete forms and their sizes in bytes, least recently used first."""
        found = []
        for note in self._folder.glob(f"*/{_NOTE}"):
            if note.parent.suffix == _PARTIAL:
                continue
            with contextlib.suppress(FileNotFoundError):  # another thread has just removed it
                size = sum(path.stat().st_size for path in note.parent.iterdir())
                found.append((note.stat().st_mtime_ns, note.parent, size))
        return [(folder, size) for _, folder, size in sorted(found)]


def _note(path: Path, *, durably: bool = True) -> _File:
    """Return size and hash of a file; `durably` also brings its content to the disk."""
    with path.open("rb") as file:
        if durably:
            os.fsync(file.fileno())
        return _File(
            name=path.name,
            size=os.fstat(file.fileno()).st_size,
            sha256=hashlib.file_digest(file, "sha256").hexdigest(),
        )


def _sync_folder(folder: Path) -> None:
    """Bring the names of a folder's files to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seen(folder: Path, notes: tuple[_File, ...]) -> tuple[int, ...]:
    """Return what the file system says of a form's files. Raises OSError."""
    states = [(folder / note.name).stat() for note in notes]
    return tuple(number for state in states for number in (state.st_ino, state.st_size, state.st_mtime_ns))
