"""Tell people, and programs, how a run ended."""

import dataclasses
import json
from collections import Counter
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nemesis.checker import FindingKind, Verdict

_EXAMPLES = 5
"""Findings of one kind that are shown; the others stand in the JSON."""


def as_json(verdict: Verdict, settings: dict[str, Any]) -> str:
    """Return the verdict as a JSON document."""
    counts = {kind: verdict.count(kind) for kind in get_args(FindingKind)}
    return json.dumps(
        {"passed": verdict.passed, "settings": settings, "counts": counts, **dataclasses.asdict(verdict)},
        indent=2,
        ensure_ascii=False,
    )


def show(verdict: Verdict, notes: list[str], console: Console) -> None:
    """Print the verdict."""
    console.print(_summary(verdict))
    if verdict.slopes:
        console.print(_growth(verdict))
    for note in dict.fromkeys(notes):
        console.print(Text(f"note: {_clean(note)}"), soft_wrap=True)
    seen: Counter[str] = Counter()
    for finding in verdict.findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= _EXAMPLES:
            line = f"{finding.kind}  {finding.at_s:7.1f} s  {finding.subject}: {_clean(finding.text)}"
            console.print(Text(line), soft_wrap=True)
        elif seen[finding.kind] == _EXAMPLES + 1:
            console.print(f"{finding.kind}  ... {verdict.count(finding.kind) - _EXAMPLES} more")
    console.print("[bold green]passed" if verdict.passed else "[bold red]failed")


def _clean(text: str) -> str:
    """Keep what a broken part said from ruling the terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _summary(verdict: Verdict) -> Table:
    table = Table("what", "figure", title="Nemesis")
    families: Counter[str] = Counter()
    for name, times in verdict.faults.items():
        families[name.partition(":")[0]] += times
    injected = ", ".join(f"{name} {times}" for name, times in sorted(families.items()))
    table.add_row("faults", injected or "none")
    table.add_row("tasks sent, accepted", f"{verdict.tasks}, {verdict.accepted}")
    table.add_row("first answers", ", ".join(f"{name} {n}" for name, n in sorted(verdict.statuses.items())))
    table.add_row("predictions compared", str(verdict.predictions))
    table.add_row("copies of answers", str(verdict.repeated))
    table.add_row("excused by a killed broker", str(verdict.excused))
    table.add_row("worst lateness", f"{verdict.worst_lateness_s:.2f} s")
    table.add_row("worst lag of the nemesis itself", f"{verdict.worst_lag_s:.2f} s")
    table.add_row("processors were short for", f"{verdict.starved_s:.0f} s")
    ended = ", ".join(f"{part} {times}" for part, times in sorted(verdict.ended.items()))
    table.add_row("ended by themselves", ended or "none")
    for kind in get_args(FindingKind):
        count = verdict.count(kind)
        table.add_row(kind, Text(str(count), style="red" if count else "green"))
    return table


def _growth(verdict: Verdict) -> Table:
    table = Table(
        "part", "observed s", "MiB at end", "MiB/min", "descriptors", "threads", title="Growth after warm-up"
    )
    for slope in verdict.slopes:
        figures = (f"{slope.observed_s:.0f}", f"{slope.end_mib:.0f}", f"{slope.mib_per_minute:+.2f}")
        table.add_row(slope.part, *figures, f"{slope.descriptors:+d}", f"{slope.threads:+d}")
    return table
