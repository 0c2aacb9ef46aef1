"""What the gateway's core keeps of tasks is bounded, and full early."""

from splitplace.services.gateway.agenda import Agenda
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.task import NewTask, RetryRules
from tests.services.gateway import stimuli
from tests.support.held import assert_flat

PERIOD_MS = 125.0
DAY_MS = 24 * 3600 * 1000.0


def key(number: int) -> str:
    return f"camera-{number % 7}.{number}.{number:08x}"


def test_a_gateway_is_flat_also_where_deadlines_are_a_day_away() -> None:
    core = GatewayCore(RetryRules(grace_ms=500.0, max_attempts=4, stall_ms=2000.0))
    core.nodes_online({"n1": stimuli.BOOT}, 0.0)

    def handle(number: int) -> None:
        now_ms = PERIOD_MS * number
        core.accept(NewTask(key(number), "tiny", 2, 32, DAY_MS, accepted_at_ms=now_ms), now_ms)
        core.decided(stimuli.decided(key=key(number)), now_ms)
        core.placed(stimuli.placed(key=key(number)), now_ms)
        core.result(stimuli.result(key=key(number)), now_ms + 50.0)
        core.time_passed(now_ms + 60.0)

    assert_flat(core, handle)


def test_an_agenda_keeps_few_plans_that_were_replaced() -> None:
    agenda = Agenda()
    agenda.plan("last", 10 * DAY_MS)

    def handle(number: int) -> None:
        for moment in range(3):
            agenda.plan(key(number), DAY_MS + number + moment)
        agenda.forget(key(number))

    assert_flat(agenda, handle)
    assert agenda.take_due(2 * DAY_MS) == []
    assert agenda.take_due(10 * DAY_MS) == ["last"]
