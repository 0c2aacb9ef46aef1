"""The simulator: policies and cores of the live system on a virtual clock, with simulated hosts and links.

>>> from splitplace.simulator import Scenario, run
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
