"""The text files of the repository, for tests of the tree itself."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDERS = (
    *("splitplace", "services", "messages", "edge_node"),
    *("tests", "benchmarks", "nemesis", "examples", "deploy", "mosquitto", "docs", "website", ".ci"),
)
SUFFIXES = {
    *(".py", ".md", ".sh", ".toml", ".yaml", ".json", ".conf"),
    *(".service", ".services", ".node", ".svg", ""),
}

SHIPPED = ROOT / "splitplace" / "shipped_store"
"""Files of pieces in it have no suffix, but are no texts."""


class Text(NamedTuple):
    """A text file and its content."""

    path: Path
    """From the root of the repository."""
    content: str


def _files() -> Iterator[Path]:
    """Every file of the repository: no environments, no caches, nothing that runs leave behind."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")
    for folder in FOLDERS:
        yield from (
            path
            for path in sorted((ROOT / folder).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts and not path.match(f"{SHIPPED}/*/pieces/*")
        )


@cache
def texts() -> tuple[Text, ...]:
    """Every text file but the licence."""
    return tuple(
        Text(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
        for path in _files()
        if path.suffix in SUFFIXES and path.name != "LICENSE"
    )
