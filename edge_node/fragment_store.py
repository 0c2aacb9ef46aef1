"""Fragments on this node's disk, by hash. Plain blocking disk code: call it in a thread."""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bus.store import StoreError, verify
from messages.limits import CHUNK_BYTES

_SUFFIX = ".onnx"
_PARTIAL = ".partial"


class PartialFragment:
    """A fragment file that is being written piece by piece; gone when left unfinished."""

    def __init__(self, path: Path, file_bytes: int) -> None:
        self.path = path
        self._file = path.open("w+b")
        self._file.truncate(file_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, chunk: int, body: bytes | memoryview) -> None:
        """Put a piece where it belongs. Raises OSError."""
        self._file.seek(chunk * CHUNK_BYTES)
        self._file.write(body)

    def flush(self) -> None:
        """Bring everything to the disk, so that a power cut cannot leave a hollow file under a good name."""
        self._file.flush()
        os.fsync(self._file.fileno())


class FragmentStore:
    """A bounded cache: the least recently used files make room."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Opens the cache.

        Args:
            folder: made where missing; what earlier downloads left unfinished in it is removed.
            max_bytes: of all files. A single bigger one is still kept, until the next comes.

        Raises:
            OSError: the folder cannot be used.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*{_PARTIAL}"):
            left.unlink(missing_ok=True)

    def fragments(self) -> tuple[str, ...]:
        """Hashes of what is here, most recently used first."""
        return tuple(path.stem for path, _ in reversed(self._by_age()))

    def find(self, sha256: str) -> Path | None:
        """The file of a fragment, if it is here and its content is right; a wrong one is removed."""
        path = self._path(sha256)
        if not path.exists():
            return None
        try:
            verify(path, sha256)
            _touch(path)
        except (StoreError, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return path

    def begin(self, sha256: str, file_bytes: int) -> PartialFragment:
        """A new file to write the fragment's pieces into. Raises OSError."""
        return PartialFragment(self._folder / f"{sha256}{_PARTIAL}", file_bytes)

    def finish(self, partial: PartialFragment, sha256: str) -> Path:
        """Keep a file that is complete, under its name.

        Raises:
            StoreError: its content has another hash.
            OSError: the disk refuses.
        """
        partial.flush()
        verify(partial.path, sha256)
        path = self._path(sha256)
        with self._lock:
            partial.path.replace(path)
            _touch(path)
            self._make_room(keep=path)
        return path

    def _make_room(self, keep: Path) -> None:
        files = self._by_age()
        total = sum(size for _, size in files)
        for path, size in files:
            if total <= self._max_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size

    def _by_age(self) -> list[tuple[Path, int]]:
        """Files and their sizes in bytes, least recently used first."""
        found = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another thread has just removed it
                seen = path.stat()
                found.append((seen.st_mtime_ns, path, seen.st_size))
        return [(path, size) for _, path, size in sorted(found)]

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}{_SUFFIX}"


def _touch(path: Path) -> None:
    """Used now. Said to the nanosecond, because the kernel's own notion of now lags some milliseconds."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns, now_ns))
