"""The keys that the TOML file may have, and what is wrong with others. Pure.

One flat file serves all parts, so each part must know the keys of the others to tell them from mistakes.
"""

import difflib
from collections.abc import Collection

OF_PARTS = frozenset(
    (
        "arms",
        "broker_megabytes_per_second",
        "codec",
        "cores",
        "cpu_share",
        "discover",
        "durable",
        "fine_tuning",
        "fine_tuning_s",
        "forget_after_s",
        "fragment_dir",
        "fragment_store_mb",
        "grace_ms",
        "join",
        "journal",
        "keep_answers_s",
        "least_coverage",
        "link_megabytes_per_second",
        "look_every_s",
        "mab_mode",
        "loading",
        "loading_s",
        "margin",
        "max_attempts",
        "max_input_mb",
        "max_tasks",
        "memory_budget_mb",
        "node",
        "pacing",
        "placement",
        "policy",
        "prepare_timeout_s",
        "queue_mb",
        "replicas",
        "run_limit_s",
        "save_every_s",
        "second_runs",
        "seed",
        "silent_after_ms",
        "stall_ms",
        "threads",
        "tolerance",
        "vitals_every_s",
        "warm_start",
        "warm_up",
    )
)
"""Keys of the services and nodes, beside those that all parts share; a test compares."""


def correction(key: str, known: Collection[str]) -> str:
    """Return what to do about an unknown key: the nearest known one, if any is near."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "every part lists its settings with --help"
