"""Promises of the policy in a simulated system whose noise its predictions do not know."""

from random import Random

from splitplace.messages.task import TaskFinished
from splitplace.policies.promises import reliability
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import Spread
from tests.support.logs import log_of
from tests.support.questions import APPLICATION, CALIBRATION, cluster, question

NOISY = CALIBRATION.model_copy(update={"work": Spread(quantiles=(0.8, 0.9, 1.0, 1.1, 1.4, 2.5))})


def test_promises_of_a_simulated_system_are_kept() -> None:
    random = Random(5)
    tasks = [
        Arrival(
            f"sim.{n}", 400.0 * n, APPLICATION.name, 1, 92.5 * random.choice([0.9, 1.0, 1.1, 1.2, 1.5, 2.5])
        )
        for n in range(900)
    ]
    asked = question(calibration=NOISY, cluster=cluster(2), policy="expected-reward+earliest-finish")
    ends = [event for _, event in log_of(asked, tasks) if isinstance(event, TaskFinished)]
    promised = [(end.promised, end.on_time) for end in ends[100:] if end.promised is not None]
    rows = [row for row in reliability(promised) if row.tasks >= 30]
    assert len(promised) > 600
    assert len(rows) >= 3, "there is something to promise"
    for row in rows:
        chance = 2.6 * (row.promised * (1 - row.promised) / row.tasks) ** 0.5
        assert abs(row.promised - row.kept) < 0.05 + chance, row
