"""The files of fragments on this node's disk, named by their hashes: so pieces refer to their weights.

Plain blocking disk code: call it in a thread.
"""

import contextlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile
from splitplace.storage.model_store import StoreError, verify
from splitplace.storage.replace import move_into_place

_PARTIAL = ".partial"
_NAME = re.compile(rf"[0-9a-f]{{64}}({_PARTIAL})?")
_PROBE = ".probe-"

CHECK_EVERY_S = 5.0
"""Pause between two tries to write to a disk that has refused."""


class PartialFile:
    """A file that is written chunk by chunk, and whose download can resume after a crash.

    Behind the content there is one byte for each chunk, set when the chunk has been written. If a power cut
    keeps the byte and loses the chunk, the hash of the whole file tells, and it is fetched again.
    """

    def __init__(self, path: Path, file_bytes: int, on_close: Callable[[Path], None]) -> None:
        """Open the file of an earlier download, or a new one. Raises OSError."""
        self.path = path
        self._on_close = on_close
        self._file_bytes = file_bytes
        chunks = -(-file_bytes // CHUNK_BYTES)
        try:
            self._file = path.open("r+b")
        except FileNotFoundError:
            self._file = path.open("w+b")
        if os.fstat(self._file.fileno()).st_size != file_bytes + chunks:
            self._file.truncate(0)
            self._file.truncate(file_bytes + chunks)
        self._file.seek(file_bytes)
        self.written = frozenset(index for index, mark in enumerate(self._file.read(chunks)) if mark)
        """Chunks that were here when the file was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether it can be written no more."""
        return self._file.closed

    def close(self) -> None:
        """Close it; its download can resume."""
        self._file.close()
        self._on_close(self.path)

    def write(self, chunk: int, body: bytes | memoryview) -> None:
        """Write a chunk to its place. Raises OSError."""
        self._file.seek(chunk * CHUNK_BYTES)
        self._file.write(body)
        self._file.flush()
        self._file.seek(self._file_bytes + chunk)
        self._file.write(b"\x01")
        self._file.flush()

    def complete(self) -> None:
        """Leave only the content, and sync it: a power cut must not leave an empty file under a good name."""
        self._file.truncate(self._file_bytes)
        self._file.flush()
        os.fsync(self._file.fileno())


class Forms(Protocol):
    """The prepared forms on the same disk: they can be made again, so they make room first."""

    @property
    def size_bytes(self) -> int:
        """Size of all of them."""
        ...

    def free(self, wanted_bytes: int) -> int:
        """Remove forms that nobody maps until so much is freed. Return how much."""
        ...


class FragmentStore:
    """A bounded cache: the least recently used files make room, before a new one is fetched."""

    def __init__(self, folder: Path, max_bytes: int, forms: Forms | None = None) -> None:
        """Open the cache.

        Args:
            folder: created if missing; unfinished downloads in it can resume.
            max_bytes: of all files, including unfinished ones, and of the prepared forms. A single larger
                file is kept until the next one comes.
            forms: the prepared forms that share these bytes.

        A disk that is full, read-only or broken is no error: `trouble` says so, and what is there is used.

        Raises:
            OSError: the folder is not a folder, or not ours.
        """
        self.trouble = ""
        """Why nothing can be written now; empty while all is well."""
        self.folder = folder
        self._max_bytes = max_bytes
        self._forms = forms
        self._checked_s = time.monotonic()
        self._lock = threading.Lock()
        self._open: set[Path] = set()
        """Unfinished files that are being written."""
        self._kept: Counter[Path] = Counter()
        """Files that are about to be used, and by how many."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError):
            raise
        except OSError as error:
            self.note_trouble(error)
        else:
            self._probe()

    def note_trouble(self, error: OSError) -> None:
        """Note that the disk has refused a write. `check` finds out when that is over."""
        self.trouble = f"fragments cannot be written to {self.folder}: {error.strerror or error}"
        self._checked_s = time.monotonic()

    def check(self) -> None:
        """Try again to write where the disk has refused, once in a while."""
        if self.trouble and time.monotonic() - self._checked_s >= CHECK_EVERY_S:
            self._probe()

    def _probe(self) -> None:
        probe = self.folder / f"{_PROBE}{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with probe.open("wb") as file:
                file.write(bytes(CHUNK_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.note_trouble(error)
        else:
            self.trouble = ""
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

    def files(self) -> tuple[str, ...]:
        """Return the hashes of complete files, most recently used first."""
        return tuple(path.name for path, _ in reversed(self._by_age()) if path.suffix != _PARTIAL)

    def find(self, sha256: str) -> Path | None:
        """Return the path of a file; None if it is missing or had a wrong hash and was removed."""
        path = self._path(sha256)
        if not path.exists():
            return None
        try:
            verify(path, sha256)
        except (StoreError, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # a read-only disk still gives good files
            _touch(path)
        return path

    @contextlib.contextmanager
    def keeping(self, files: Collection[str]) -> Iterator[None]:
        """Let files, given by their hashes, not make room for others, even if the bound is exceeded."""
        paths = [self._path(sha256) for sha256 in files]
        with self._lock:
            self._kept.update(paths)
        try:
            yield
        finally:
            with self._lock:
                self._kept.subtract(paths)
                self._kept += Counter()  # without those that nobody keeps

    def begin(self, file: StoredFile) -> PartialFile:
        """Open a file for its chunks, with those that are here already. Makes room for it.

        If it is closed without `finish`, the next `begin` resumes it. Raises OSError.
        """
        path = self.folder / f"{file.sha256}{_PARTIAL}"
        with self._lock:
            self._open.add(path)
            self._make_room(path, file.file_bytes)
            try:
                return PartialFile(path, file.file_bytes, on_close=self._open.discard)
            except OSError:
                self._open.discard(path)
                raise

    def finish(self, partial: PartialFile, sha256: str) -> Path:
        """Keep a complete file under its final name.

        Raises:
            StoreError: its content has another hash; it is removed.
            OSError: it cannot be written.
        """
        partial.complete()
        try:
            verify(partial.path, sha256)
        except StoreError:
            partial.path.unlink(missing_ok=True)
            raise
        path = self._path(sha256)
        with self._lock:
            move_into_place(partial.path, path)
            _touch(path)
            self._make_room(path, path.stat().st_size)
        return path

    def make_room(self, form_bytes: int) -> None:
        """Remove least recently used files until a prepared form of this size fits beside the others."""
        with self._lock:
            self._remove_files(None, form_bytes + (self._forms.size_bytes if self._forms else 0))

    def _make_room(self, keep: Path, keep_bytes: int) -> None:
        """Remove forms, then files, until the rest fits beside a file that is or will be there."""
        forms_bytes = self._forms.size_bytes if self._forms else 0
        if self._forms is not None:
            total = keep_bytes + forms_bytes + sum(size for path, size in self._by_age() if path != keep)
            forms_bytes -= self._forms.free(total - self._max_bytes)
        self._remove_files(keep, keep_bytes + forms_bytes)

    def _remove_files(self, keep: Path | None, taken_bytes: int) -> None:
        """Remove least recently used files, but one, until the rest fits beside what is taken."""
        others = [(path, size) for path, size in self._by_age() if path != keep]
        total = taken_bytes + sum(size for _, size in others)
        for path, size in others:
            if total <= self._max_bytes:
                return
            if path not in self._open and path not in self._kept:
                path.unlink(missing_ok=True)
                total -= size

    def _by_age(self) -> list[tuple[Path, int]]:
        """Return files and their sizes in bytes, least recently used first."""
        found = []
        for path in self.folder.glob("*"):
            if not _NAME.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another thread has just removed it
                seen = path.stat()
                found.append((seen.st_mtime_ns, path, seen.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256


def _touch(path: Path) -> None:
    """Mark a file as used now. To the nanosecond: the kernel's own timestamps lag some milliseconds."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns, now_ns))
