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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from splitplace.edge_node.stage.memory import StageMemory
from splitplace.edge_node.stage.prepare import MODEL, WEIGHTS
from splitplace.edge_node.stage.processor import runtime_identity
from splitplace.errors import SplitPlaceError
from splitplace.messages.base import Part, Sha256
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.pieces import ChainStage
from splitplace.storage.replace import move_into_place, replace_file

FORMAT = 1
"""Version of the way in which stages are prepared. Raise it when that changes."""
_NOTE = "note.json"
_PARTIAL = ".partial"
_MAX_NOTE_BYTES = 1 << 16


class FormFile(Part):
    """A file of a form."""

    name: str
    size: int
    sha256: Sha256


class FormNote(Part):
    """What is noted of a form."""

    files: Annotated[tuple[FormFile, ...], Field(min_length=1, max_length=2)]
    memory: StageMemory | None = None
    """None before it was measured."""
    packed: bool = True
    """Whether its weights are laid out for this processor."""

    @property
    def mapped_bytes(self) -> int:
        """Size of its weights, which a session maps."""
        return sum(file.size for file in self.files if file.name == WEIGHTS)


@dataclass
class UnfinishedForm:
    """A form that is being made."""

    folder: Path
    """Empty at first."""
    memory: StageMemory | None = None
    packed: bool = True


def key_of(stage: ChainStage, identity: str | None = None) -> str:
    """Return the key of a stage's prepared form: a SHA-256 in hexadecimal.

    It covers the pieces, the head, ONNX Runtime's version and the processor's instructions.

    Args:
        stage: The stage.
        identity: Runtime and processor; by default those of this process.
    """
    about = f"{FORMAT}\n{identity or runtime_identity()}\n{stage.model_dump_json()}"
    return hashlib.sha256(about.encode()).hexdigest()


class FormTooLargeError(SplitPlaceError):
    """A form that has no room on the disk beside those that are mapped."""


class PreparedForms:
    """A bounded cache: the least recently used forms that nobody maps make room."""

    def __init__(
        self, folder: Path, max_bytes: int, *, grows: Callable[[int], None] = lambda _: None
    ) -> None:
        """Open the cache, and remove what a crash left unfinished.

        Args:
            folder: Created if missing and possible. No two processes may share it.
            max_bytes: Bound of all forms together.
            grows: Called before a form is written, with its expected size in bytes: what shares the disk
                can make room.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._grows = grows
        self._lock = threading.Lock()
        self._mapped: Counter[str] = Counter()
        self._checked: dict[str, tuple[int, ...]] = {}
        """Forms whose hashes were right, and what the file system said of their files then."""
        self._notes: dict[str, tuple[tuple[int, ...], FormNote]] = {}
        """What was read of the notes, and what the file system said of them then."""
        with contextlib.suppress(OSError):  # a read-only disk still gives good forms
            folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(path, ignore_errors=True)

    def map(self, key: str) -> None:
        """Let a form stay until `unmap`: while it is mapped, removing it would free no space."""
        with self._lock:
            self._mapped[key] += 1

    def unmap(self, key: str) -> None:
        """Let a form make room for others again."""
        with self._lock:
            self._mapped[key] -= 1
            self._mapped += Counter()  # without those that nobody maps

    @property
    def room_bytes(self) -> int:
        """Size that a new form may have, if all forms that nobody maps make room."""
        with self._lock:
            mapped = sum(size for path, size in self._by_age() if path.name in self._mapped)
        return max(0, self._max_bytes - mapped)

    def made(self) -> tuple[str, ...]:
        """Return the keys of all forms, most recently used first. They are not checked."""
        return tuple(path.name for path, _ in reversed(self._by_age()))

    def free(self, wanted_bytes: int) -> int:
        """Remove the least recently used forms that nobody maps, until so much is freed. Return how much."""
        freed = 0
        with self._lock:
            for path, size in self._by_age():
                if freed >= wanted_bytes:
                    break
                if path.name not in self._mapped:
                    self._remove(path)
                    freed += size
        return freed

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
    def making(self, key: str, expected_bytes: int = 0) -> Iterator[UnfinishedForm]:
        """Give an empty folder for a new form, and keep its files when the block ends without an error.

        Args:
            key: Key of the form.
            expected_bytes: Expected size of the form. Room for it is made before it is written.

        Raises:
            FormTooLargeError: The bound does not hold it beside those that are mapped.
            OSError: It cannot be written.
        """
        partial = self._folder / f"{key}{_PARTIAL}"
        shutil.rmtree(partial, ignore_errors=True)
        with self._lock:
            self._remove(self._folder / key)
            self._make_room(expected_bytes)
        self._grows(expected_bytes)
        partial.mkdir(parents=True)
        form = UnfinishedForm(partial)
        try:
            yield form
            files = tuple(_file(partial / name) for name in (MODEL, WEIGHTS) if (partial / name).exists())
            size = sum(file.size for file in files)
            if size > self.room_bytes:
                raise FormTooLargeError(too_large(size, self.room_bytes))
            note = FormNote(files=files, memory=form.memory, packed=form.packed)
            replace_file(partial / _NOTE, note.model_dump_json().encode())
            _sync_folder(partial)
            with self._lock:
                self._make_room(size)
                final = self._folder / key
                move_into_place(partial, final)
                self._checked[key] = _seen(final, files)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def about(self, key: str) -> FormNote | None:
        """Return what is noted of a form; None if there is none. It is not checked."""
        try:
            return self._read(self._folder / key)
        except (OSError, ValueError):
            return None

    def note_memory(self, key: str, memory: StageMemory) -> None:
        """Note what was measured of a form. Raises OSError if there is none, or it cannot be written."""
        note = self._read(self._folder / key)
        content = note.model_copy(update={"memory": memory}).model_dump_json()
        replace_file(self._folder / key / _NOTE, content.encode())

    def _check(self, folder: Path) -> None:
        """Compare the files with their note: the hashes once, later only what the file system says.

        Raises:
            ValueError: They are not what was written.
            OSError: They cannot be read.
        """
        files = self._read(folder).files
        seen = _seen(folder, files)
        if self._checked.get(folder.name) == seen:
            return
        for file in files:
            if file.name not in {MODEL, WEIGHTS} or _file(folder / file.name, durably=False) != file:
                raise ValueError(f"{folder / file.name} is damaged")
        self._checked[folder.name] = seen

    def _read(self, folder: Path) -> FormNote:
        """Return the note of a form. Raises OSError, ValueError."""
        with (folder / _NOTE).open("rb") as file:
            state = os.fstat(file.fileno())
            seen = (state.st_ino, state.st_size, state.st_mtime_ns)
            read = self._notes.get(folder.name)
            if read is not None and read[0] == seen:
                return read[1]
            note = FormNote.model_validate_json(file.read(_MAX_NOTE_BYTES))
        self._notes[folder.name] = (seen, note)
        return note

    def _make_room(self, more_bytes: int) -> None:
        """Remove the least recently used forms that nobody maps, until a new one fits or none is left."""
        forms = self._by_age()
        total = more_bytes + sum(size for _, size in forms)
        for path, size in forms:
            if total <= self._max_bytes:
                return
            if path.name not in self._mapped:
                self._remove(path)
                total -= size

    def _remove(self, folder: Path) -> None:
        self._checked.pop(folder.name, None)
        self._notes.pop(folder.name, None)
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


def too_large(size: int, room_bytes: int) -> str:
    """Say that a form is too large for the disk, and what to do."""
    return (
        f"its prepared form takes {size / MEBIBYTE:.1f} MiB on the disk, and there is room for "
        f"{room_bytes / MEBIBYTE:.1f} MiB beside those in use: raise fragment_store_mb; "
        "prepared forms may take half of it"
    )


def _file(path: Path, *, durably: bool = True) -> FormFile:
    """Return size and hash of a file; `durably` also brings its content to the disk."""
    with path.open("rb") as file:
        if durably:
            os.fsync(file.fileno())
        return FormFile(
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


def _seen(folder: Path, files: tuple[FormFile, ...]) -> tuple[int, ...]:
    """Return what the file system says of a form's files. Raises OSError."""
    states = [(folder / file.name).stat() for file in files]
    return tuple(number for state in states for number in (state.st_ino, state.st_size, state.st_mtime_ns))
