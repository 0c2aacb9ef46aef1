"""The laboratory's simulator: the policies of the live system over hosts and a network on a virtual clock.

>>> from simulator import Scenario, run
>>> result = run(Scenario(rate=6, intervals=100), policy="expected-reward+earliest-finish", seed=0)
"""

from splitplace.simulator.result import Quality, Result, TaskRecord
from splitplace.simulator.running import Learnt, arms_of, run, train
from splitplace.simulator.scenario import CLOUD, Drift, Failures, Scenario

__all__ = [
    "CLOUD",
    "Drift",
    "Failures",
    "Learnt",
    "Quality",
    "Result",
    "Scenario",
    "TaskRecord",
    "arms_of",
    "run",
    "train",
]
