"""The summary says what holds, and names the pages that it cannot count."""

import json
from pathlib import Path

from splitplace.experiments.findings import Finding
from splitplace.experiments.page import write_index
from splitplace.experiments.plan import Claim, Experiment
from splitplace.experiments.summary import VERDICTS, commit_of, keep_verdicts, write_summary

NEW, OLD, ABSENT = (
    Experiment(name=name, title=name, question="?", policies=(), metrics=())
    for name in ("new", "old", "absent")
)


def test_statements_stand_below_their_verdicts_and_old_pages_are_named(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.md").write_text("- versions; commit abc123", encoding="utf-8")
    keep_verdicts(
        [
            Finding(Claim("layers are slow", ()), "holds", "a less b: +3"),
            Finding(Claim("energy falls", ()), "not comparable", "arms of mc are not the paper's"),
            Finding(Claim("ours is best", (), source="aim"), "fails", "c less d: -1"),
            Finding(Claim("nobody ran this", ()), None, "no runs"),
        ],
        tmp_path / "new",
    )
    text = write_summary([NEW, OLD, ABSENT], tmp_path).read_text(encoding="utf-8")
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# What holds, and what does not",
        "## Every verdict",
        "### What holds of the paper",
        "### What cannot be compared with the paper",
        "### Aims that are missed",
        "## Pages that are not counted",
    ]
    assert "- Layers are slow. a less b: +3 ([new](new.md))" in text
    assert "[old](old.md)." in text
    assert "absent" not in text
    assert len(json.loads((tmp_path / "new" / VERDICTS).read_text(encoding="utf-8"))) == 4


def test_plain_words_come_before_the_verdicts(tmp_path: Path) -> None:
    text = write_summary([ABSENT], tmp_path, "Layers are slow.\n").read_text(encoding="utf-8")
    assert text.index("## In plain words\n\nLayers are slow.\n\n## Every verdict") > 0


def test_the_commit_is_the_one_that_the_page_names(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("- Python 3.11; commit abc123\n", encoding="utf-8")
    assert commit_of(page) == "abc123"
    page.write_text("- Python 3.11\n", encoding="utf-8")
    assert commit_of(page) == "–"


def test_the_index_leads_to_the_page_of_real_processes_if_there_is_one(tmp_path: Path) -> None:
    assert "live.md" not in write_index([ABSENT], tmp_path).read_text(encoding="utf-8")
    (tmp_path / "live.md").write_text("# Live and simulated\n", encoding="utf-8")
    assert "[live.md](live.md)" in write_index([ABSENT], tmp_path).read_text(encoding="utf-8")
