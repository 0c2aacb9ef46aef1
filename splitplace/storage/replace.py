"""Write a file and put it in place of another, so that a crash leaves the old file or the new one.

A file that is only renamed may be empty after a power cut: its content must reach the disk before the rename,
and the rename itself is safe once its folder has reached the disk.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write `content` to `path`; readers see the old file or the new one. Raises OSError.

    Args:
        path: The file.
        content: All of it.
        mode: Permissions of the new file, less the umask.
    """
    with replacing(path, mode=mode) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` at the end of the block, unless the block raises.

    Missing folders are made.

    Raises:
        OSError: The disk refuses; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.partial")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move_into_place(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def move_into_place(finished: Path, path: Path) -> None:
    """Rename a file whose content is on the disk, durably. Both must lie in one folder. Raises OSError."""
    finished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
