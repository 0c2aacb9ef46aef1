"""The gateway's metrics."""

from collections import Counter

from splitplace.messages.metrics import GatewayMetrics
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.journal import Journal
from splitplace.services.gateway.refusals import TRY_AGAIN, RefusalKind


def gateway_metrics(
    counts: Counter[str],
    refusals: Counter[RefusalKind],
    core: GatewayCore,
    waiting: int,
    journal: Journal,
) -> GatewayMetrics:
    """Count tasks since the start, and unfinished ones by phase.

    Args:
        counts: `received`, `accepted`, `finished` and `repeated` tasks.
        refusals: tasks that were never accepted, by the kind of refusal.
        core: holds the tasks that were begun.
        waiting: tasks that wait for their turn.
        journal: knows how long its writes took.
    """
    tasks = core.tasks.values()
    running = sum(task.placed is not None for task in tasks)
    refused = sum(refusals[kind] for kind in TRY_AGAIN)
    return GatewayMetrics(
        received=counts["received"],
        accepted=counts["accepted"],
        finished=counts["finished"],
        in_flight=len(tasks) + waiting,
        waiting_for_decision=len(tasks) + waiting - running,
        running=running,
        retried=core.retried,
        refused=refused,
        invalid=refusals.total() - refused,
        repeated=counts["repeated"],
        journal_ms=journal.mean_write_ms,
        journal_bytes=journal.size_bytes,
    )
