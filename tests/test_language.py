"""The words of docs/glossary.md hold in code, documentation and output."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.texts import ROOT, Text, texts

GLOSSARY = ROOT / "docs" / "glossary.md"
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".sh", ".conf", ".service"}
NOT_READ = ("docs/results", "docs/glossary.md", "tests/test_language.py", "splitplace/shipped_store")
"""The pages that commands write are judged by the code that writes them."""


class Row(NamedTuple):
    """A row of a table of the glossary: its cells by heading."""

    table: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Ban:
    """A word or phrase, and where it does not belong."""

    word: str
    folders: tuple[str, ...] = ()
    """Empty: everywhere."""
    except_in: tuple[str, ...] = ()
    except_beside: tuple[str, ...] = ()
    """Lines with one of these are left alone."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """Whole words, also as parts of identifiers (`the_door`) and over the end of a line."""
        words = r"[\s_#]+".join(map(re.escape, self.word.lower().split()))
        return re.compile(rf"(?<![a-z]){words}(?![a-z])")

    def applies_to(self, path: Path) -> bool:
        """Whether the word is banned in a file."""
        if any(path.is_relative_to(place) for place in self.except_in):
            return False
        return not self.folders or any(path.is_relative_to(place) for place in self.folders)

    def found_in(self, text: Text) -> Iterator[str]:
        """Where the word stands, as `file:line: text`."""
        lines = text.content.splitlines()
        for match in self.pattern.finditer(_split_words(text.content)):
            number = _split_words(text.content).count("\n", 0, match.start())
            if not any(fine in lines[number] for fine in self.except_beside):
                yield f"{text.path}:{number + 1}: {lines[number].strip()[:120]}"


@cache
def _split_words(text: str) -> str:
    """In lower case, with the words of `camelCase` apart."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()


@cache
def read() -> tuple[Text, ...]:
    """The files whose words are judged."""
    return tuple(
        text
        for text in texts()
        if text.path.suffix in SUFFIXES and not any(text.path.is_relative_to(place) for place in NOT_READ)
    )


def rows() -> Iterator[Row]:
    """Every row of every table of the glossary."""
    table, headings = "", list[str]()
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            table = line[3:]
        if not line.startswith("|"):
            headings = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not headings:
            headings = cells
        elif not line.startswith("|---"):
            yield Row(table, dict(zip(headings, cells, strict=True)))


def quoted(cell: str) -> tuple[str, ...]:
    """What stands in backticks."""
    return tuple(re.findall(r"`([^`]+)`", cell))


def bans() -> list[Ban]:
    """Every ban of the glossary."""
    return [
        *(
            Ban(word)
            for row in rows()
            for column in ("not", "instead of")
            for word in quoted(row.cells.get(column, ""))
        ),
        *(
            Ban(
                word,
                quoted(row.cells["not in"]),
                quoted(row.cells["fine in"]),
                quoted(row.cells["fine beside"]),
            )
            for row in rows()
            if "word" in row.cells
            for word in quoted(row.cells["word"])
        ),
    ]


@pytest.mark.parametrize("ban", bans(), ids=lambda ban: ban.word)
def test_a_word_that_the_glossary_replaces_stands_nowhere(ban: Ban) -> None:
    assert [line for text in read() if ban.applies_to(text.path) for line in ban.found_in(text)] == []


def test_what_the_glossary_names_exists() -> None:
    paths = {name for row in rows() for name in quoted(row.cells.get("in code", "")) if "/" in name}
    places = {place for ban in bans() for place in (*ban.folders, *ban.except_in)}
    assert sorted(name for name in paths | places if not (ROOT / name).exists()) == []


def test_every_name_in_the_glossary_stands_in_the_code() -> None:
    code = "\n".join(text.content for text in read() if text.path.suffix == ".py")
    names = {name for row in rows() for name in quoted(row.cells.get("in code", "")) if "/" not in name}
    missing = [
        name
        for name in names
        if not all(re.search(rf"\b{re.escape(part)}\b", code) for part in name.split("."))
        and not list(ROOT.rglob(f"splitplace/shipped_store/*/{name}"))
    ]
    assert sorted(missing) == []


def test_no_term_stands_twice() -> None:
    terms = [row.cells["term"] for row in rows() if "term" in row.cells]
    assert len(terms) == len(set(terms))


def test_no_docstring_begins_with_of() -> None:
    """A docstring is a sentence or says what a thing is; it is not the rest of a name."""
    found = [
        f"{text.path}:{node.lineno}: {node.value.value.strip().splitlines()[0][:100]}"
        for text in read()
        if text.path.suffix == ".py"
        for node in ast.walk(ast.parse(text.content))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and re.match(r"\s*Of\b", node.value.value)
    ]
    assert found == []
