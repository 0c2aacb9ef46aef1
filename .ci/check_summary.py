"""Check the summary of a demo: print every rule that it breaks; exit with 1 if there is one.

python .ci/check_summary.py demo-summary.json --tasks 100
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

MIN_DECISIONS = 2
"""A third is taken for about one task in a hundred, so not in every run."""
SPLITS = ("layer", "layer-bottleneck", "semantic")
MIN_ACCURACY = {"mnist": 0.95, "fashionmnist": 0.82, "resnet50": 0.82, "cifar100": 0.45}
"""Minimum accuracy per application: its worst variant minus the sampling error of so few images."""
MIN_HIT_RATE = 0.4
"""Deadlines are drawn from tight to loose, so some tasks are late or refused, more on a busy machine."""
MIN_NODES = 6
MAX_SECONDS = 180


def complaints(summary: dict[str, Any], tasks: int) -> list[str]:
    """Return the rules that the summary of a demo of this many tasks breaks."""
    counts, response = summary["tasks"], summary["response_ms"]
    without = summary["without_splitting"]
    killed = summary["node_killed"] or {"lost": 0, "retried": 0, "answered": 0}
    ended = sum(counts[status] for status in ("answered", "refused", "expired", "failed"))
    taken = {name for name, count in summary["decisions"].items() if count}
    rules = {
        f"{tasks} tasks were to be sent": counts["sent"] >= tasks,
        "no accepted task may be lost": counts["lost"] == 0,
        f"every task sent must end; {ended} did": ended == counts["sent"],
        "answered <= accepted <= sent": 0 < counts["answered"] <= counts["accepted"] <= counts["sent"],
        f"at least {MIN_DECISIONS} decisions must occur, not only {sorted(taken)}": len(taken)
        >= MIN_DECISIONS,
        f"some networks must be split: {SPLITS}": not taken.isdisjoint(SPLITS),
        "MNIST and FashionMNIST were asked": {"mnist", "fashionmnist"} <= summary["by_application"].keys(),
        **{
            f"{name}: accuracy of at least {MIN_ACCURACY[name]}": MIN_ACCURACY[name]
            <= (part["accuracy"] or 0)
            <= 1
            for name, part in summary["by_application"].items()
        },
        f"deadline hit rate of at least {MIN_HIT_RATE}": MIN_HIT_RATE <= summary["deadline_hit_rate"] <= 1,
        "reward in (0, 1]": 0 < summary["reward"] <= 1,
        f"0 < p50 <= p95 of {response}": 0 < response["p50"] <= response["p95"],
        f"without splitting no task may be answered and most are refused: {without['tasks']}": (
            without["tasks"]["answered"] == 0 and 2 * without["tasks"]["refused"] > without["tasks"]["sent"]
        ),
        "no node may hold the largest network": without["needs_bytes"] > without["largest_node_bytes"] > 0,
        f"what a killed node held must be started again or end: {killed}": killed["retried"]
        <= killed["lost"],
        f"at least {MIN_NODES} nodes": len(summary["nodes"]) >= MIN_NODES,
        f"at most {MAX_SECONDS} s": summary["wall_s"] <= MAX_SECONDS,
    }
    return [rule for rule, holds in rules.items() if not holds]


def main() -> int:
    """Exit code for the arguments of the command line."""
    parser = argparse.ArgumentParser(description="Check the summary of a demo.")
    parser.add_argument("summary", type=Path)
    parser.add_argument("--tasks", type=int, required=True, help="how many the demo was asked to send")
    arguments = parser.parse_args()
    summary = json.loads(arguments.summary.read_text(encoding="utf-8"))
    found = complaints(summary, arguments.tasks)
    print(json.dumps(summary, indent=2))
    for complaint in found:
        print(f"BROKEN: {complaint}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
