"""Print a fingerprint of some simulations: `python -m benchmarks.fingerprints`. No broker.

A change that makes simulations faster must leave every line as it is: each is a hash over the whole result of
a run and its tasks, to the last bit, without the times that the run itself took.
"""

import argparse
import sys
from hashlib import sha256
from time import process_time

from splitplace.simulator import Drift, Failures, Scenario, run

_PAPER: dict[str, object] = {"hosts": 20, "rate": 8.0, "intervals": 12}
_STORE: dict[str, object] = {"profile": "store", "hosts": 8, "rate": 30.0, "intervals": 10}
_NODES = _STORE | {"discipline": "deadline"}
_INTERVAL: dict[str, object] = {"mode": "interval", "pattern": "intervals"}
_FAILURES = Failures(mean_intervals_between=4.0)

RUNS: tuple[tuple[str, dict[str, object]], ...] = (
    ("rule+earliest-finish", _PAPER),
    ("rule+earliest-finish", _PAPER | {"hosts": 200, "rate": 60.0, "intervals": 4}),
    ("rule+earliest-finish", _PAPER | {"hosts": 3, "rate": 2.0}),
    ("rule+exact", _PAPER | {"hosts": 5, "rate": 2.0}),
    ("expected-reward+earliest-finish", _PAPER | {"rate": 20.0}),
    ("mab+daso", _PAPER | {"training_intervals": 10}),
    ("mab+gobi", _PAPER),
    ("mab+daso-warm-start", _PAPER | {"hosts": 7}),
    ("gillis+daso-no-gradient", _PAPER | {"rate": 20.0}),
    ("thompson+daso-guarded", _PAPER),
    ("layer+genetic", _PAPER | {"hosts": 8, "rate": 3.0}),
    ("linucb+round-robin", _PAPER),
    ("mc+random", _PAPER | {"discipline": "deadline"}),
    ("mab+daso", _PAPER | _INTERVAL | {"rules": "paper"}),
    ("rule+earliest-finish", _PAPER | _INTERVAL | {"failures": _FAILURES}),
    ("expected-reward+earliest-finish", _PAPER | {"failures": _FAILURES, "drain_intervals": 20}),
    ("rule+daso", _PAPER | {"drift": Drift(at_interval=5, factor=0.3, share=0.5), "overcommit": 3.0}),
    ("oracle+earliest-finish", _PAPER | {"intervals": 4}),
    ("rule+earliest-finish", _STORE),
    ("expected-reward+earliest-finish", _NODES | {"replicas": 4}),
    ("expected-reward+earliest-finish", _NODES | {"loading": "demand", "memory_factor": 0.1}),
    ("mab+daso", _NODES | {"loading": "rarest", "memory_factor": 0.1, "through_broker": True}),
    ("rule+earliest-finish", _NODES | {"machines": "mixed", "replicas": 3, "failures": _FAILURES}),
)
"""Policies and scenarios of all kinds."""


def fingerprint(policy: str, changes: dict[str, object]) -> str:
    """Simulate; return the beginning of the hash of what came out."""
    result = run(Scenario.model_validate({"records": True} | changes), policy, 3)
    said = result.model_dump_json(exclude={"decision_ms", "wall_s", "cpu_s"})
    return sha256(said.encode()).hexdigest()[:16]


def main() -> None:
    """Print a line for each run, and a last one for all."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    everything = sha256()
    for policy, changes in RUNS:
        began_s = process_time()
        line = f"{fingerprint(policy, changes)}  {policy}  {changes}"
        everything.update(line.encode())
        print(line, flush=True)
        print(f"{process_time() - began_s:.1f} s of CPU", file=sys.stderr)
    print(everything.hexdigest()[:16])


if __name__ == "__main__":
    main()
