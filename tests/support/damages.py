"""What power cuts, worn-out cards and people do to a file."""

from collections.abc import Callable, Mapping
from pathlib import Path


def _torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _filled_with_nul(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _second_half_nul(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "torn": _torn,
    "filled with NUL": _filled_with_nul,
    "second half NUL": _second_half_nul,
    "something else": lambda path: path.write_bytes(b"\xff\xfe\x00 no such thing " * 100),
    "a folder": _folder,
}
"""Damages by name; each is done to a file that exists."""
