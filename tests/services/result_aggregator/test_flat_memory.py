"""What the aggregator keeps of tasks is bounded, and full early."""

import numpy as np

from splitplace.services.result_aggregator.metrics import Scoreboard
from tests.services.result_aggregator.feeding import add, knowing
from tests.support.held import assert_flat
from tests.support.messages import finished
from tests.support.outputs import outputs_of

SOME, MORE = 300, 3000
DAY_MS = 24 * 3600 * 1000.0
LOGITS = np.eye(5, dtype=np.float32)[:1]


def key(number: int) -> str:
    return f"camera-{number % 7}.{number}.{number:08x}"


def test_an_aggregator_is_flat() -> None:
    core = knowing()

    def handle(number: int) -> None:
        now_ms = 1000.0 * number
        for output in outputs_of(LOGITS, "whole", task=key(number), expires_ms=DAY_MS):
            add(core, output, now_ms)
        core.finish(key(number), 1, now_ms)
        core.expire(now_ms)

    assert_flat(core, handle, few=SOME, many=MORE)


def test_a_scoreboard_is_flat() -> None:
    scoreboard = Scoreboard()
    assert_flat(scoreboard, lambda number: scoreboard.count(finished(key(number))))
