"""Is the summary of a demo what a demo must give? Prints what is not, and exits with 1 then.

python .ci/check_summary.py demo-summary.json --tasks 100
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

LEAST_DECISIONS = 3
SPLITS = ("layer", "layer-bottleneck", "semantic")
LEAST_ACCURACY = {"mnist": 0.95, "fashionmnist": 0.82, "cifar100": 0.45}
"""By application: of the least accurate variant, less what so few images may differ by chance."""
LEAST_HIT_RATE = 0.4
"""Deadlines from tight to loose are drawn, so some are missed or refused, more of them on a busy machine."""
LEAST_NODES = 6
MOST_SECONDS = 180


def complaints(summary: dict[str, Any], tasks: int) -> list[str]:
    """What is wrong with a summary of a demo of so many tasks."""
    counts, response = summary["tasks"], summary["response_ms"]
    ended = sum(counts[status] for status in ("answered", "refused", "expired", "failed"))
    taken = {name for name, count in summary["decisions"].items() if count}
    rules = {
        f"{tasks} tasks were to be sent": counts["sent"] >= tasks,
        "no accepted task may be lost": counts["lost"] == 0,
        f"every task sent must end; {ended} did": ended == counts["sent"],
        "answered <= accepted <= sent": 0 < counts["answered"] <= counts["accepted"] <= counts["sent"],
        f"at least {LEAST_DECISIONS} decisions must occur, not only {sorted(taken)}": len(taken)
        >= LEAST_DECISIONS,
        f"some networks must be split: {SPLITS}": not taken.isdisjoint(SPLITS),
        "MNIST and FashionMNIST were asked": {"mnist", "fashionmnist"} <= summary["by_application"].keys(),
        **{
            f"{name}: accuracy of at least {LEAST_ACCURACY[name]}": LEAST_ACCURACY[name]
            <= (part["accuracy"] or 0)
            <= 1
            for name, part in summary["by_application"].items()
        },
        f"deadline hit rate of at least {LEAST_HIT_RATE}": LEAST_HIT_RATE
        <= summary["deadline_hit_rate"]
        <= 1,
        "reward in (0, 1]": 0 < summary["reward"] <= 1,
        f"0 < p50 <= p95 of {response}": 0 < response["p50"] <= response["p95"],
        f"at least {LEAST_NODES} nodes": len(summary["nodes"]) >= LEAST_NODES,
        f"at most {MOST_SECONDS} s": summary["wall_s"] <= MOST_SECONDS,
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
