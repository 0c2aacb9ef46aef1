"""The summary of all pages: what holds of the paper, what does not, and which aims are reached."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from splitplace.experiments.findings import Finding
from splitplace.experiments.plan import Experiment

VERDICTS = "verdicts.json"
"""File beside the figures of a page."""

_SECTIONS: Sequence[tuple[str, str, str]] = (
    ("paper", "holds", "What holds of the paper"),
    ("paper", "fails", "What does not hold of the paper"),
    ("paper", "not comparable", "What cannot be compared with the paper"),
    ("paper", "undecided", "What the runs leave open of the paper"),
    ("aim", "holds", "Aims that are reached"),
    ("aim", "fails", "Aims that are missed"),
    ("aim", "undecided", "Aims that the runs leave open"),
)


_EXPLANATION = (
    "Written by `splitplace experiments` from the verdicts of its pages. A statement holds or does not hold "
    "where the whole 95 % interval of the difference is on that side."
)

_OLD = (
    "Written by an earlier version, with other seeds, without the verdict *not comparable* and, in the "
    "paper's workload, with layers that are packed by bzip2: "
)


@dataclass(frozen=True)
class _Said:
    """A statement with its verdict, and the page that decided it."""

    page: str
    source: str
    verdict: str
    text: str
    sentence: str


def keep_verdicts(found: Iterable[Finding], folder: Path) -> None:
    """Write the verdicts of a page beside its figures."""
    said = [
        {
            "source": finding.claim.source,
            "verdict": finding.verdict,
            "text": finding.claim.text,
            "sentence": finding.sentence,
        }
        for finding in found
    ]
    (folder / VERDICTS).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def commit_of(page: Path) -> str:
    """Return the commit that a page names; a dash without one."""
    found = re.search(r"; commit (\S+)", page.read_text(encoding="utf-8"))
    return found[1] if found else "–"


def write_summary(experiments: Iterable[Experiment], folder: Path, in_words: str = "") -> Path:
    """Write `summary.md` from the verdicts of all pages in a folder.

    Pages that an earlier version wrote have no such file; they are named.

    Args:
        experiments: all experiments.
        folder: the folder.
        in_words: what a person says of the results; shown apart from what was counted.
    """
    pages = [each for each in experiments if (folder / f"{each.name}.md").is_file()]
    known = [each for each in pages if (folder / each.name / VERDICTS).is_file()]
    said = [statement for each in known for statement in _said(each.name, folder)]
    lines = ["# What holds, and what does not"]
    if in_words:
        lines += ["## In plain words", in_words.strip()]
    lines += ["## Every verdict", _EXPLANATION]
    for source, verdict, heading in _SECTIONS:
        those = [each for each in said if (each.source, each.verdict) == (source, verdict)]
        if those:
            lines.append(f"### {heading}")
            lines.append("\n".join(f"- {_sentence(each)}" for each in those))
    old = [each for each in pages if each not in known]
    if old:
        lines.append("## Pages that are not counted")
        lines.append(_OLD + ", ".join(f"[{each.name}]({each.name}.md)" for each in old) + ".")
    path = folder / "summary.md"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def _said(name: str, folder: Path) -> list[_Said]:
    found = json.loads((folder / name / VERDICTS).read_text(encoding="utf-8"))
    return [
        _Said(name, each["source"], str(each["verdict"]), each["text"], each["sentence"]) for each in found
    ]


def _sentence(said: _Said) -> str:
    text = said.text[0].upper() + said.text[1:]
    return f"{text}. {said.sentence} ([{said.page}]({said.page}.md))"
