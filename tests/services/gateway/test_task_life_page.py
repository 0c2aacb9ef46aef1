"""docs/task-life.md says what the code does."""

import re
from dataclasses import fields
from pathlib import Path

from splitplace.services.gateway import instructions
from splitplace.services.gateway.task import TRANSITIONS, RetryRules
from tests.services.gateway import stimuli

PAGE = (Path(__file__).parents[3] / "docs" / "task-life.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_the_page_shows_every_phase_with_what_may_follow() -> None:
    assert {row[0].strip("`"): names(row[2]) for row in rows("Phases")} == TRANSITIONS


def test_the_page_shows_every_stimulus() -> None:
    assert {next(iter(re.findall(r"`(\w+)`", row[0]))) for row in rows("Stimuli")} == set(stimuli.NAMES)


def test_the_page_shows_every_instruction() -> None:
    known = {kind.__name__ for kind in instructions.Instruction.__args__}
    assert {row[0] for row in rows("Instructions")} == known


def test_every_rule_that_the_page_names_exists() -> None:
    rules = {field.name for field in fields(RetryRules)}
    assert set(re.findall(r"`(\w+_ms|max_\w+)`", PAGE)) - {"next_due_ms", "retry_at_ms"} <= rules
