"""What the gateway tells dashboards about itself."""

from collections import Counter

from splitplace.messages.metrics import GatewayMetrics
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.intake import RefusalKind
from splitplace.services.gateway.journal import Journal

OUR_FAULT: tuple[RefusalKind, ...] = ("overloaded", "journal")
"""Refusals of tasks that are valid: their senders may try again."""


def gateway_metrics(
    counts: Counter[str], refusals: Counter[RefusalKind], core: GatewayCore, journal: Journal
) -> GatewayMetrics:
    """Counters since the start, and how many tasks are where.

    Args:
        counts: tasks `received`, `accepted`, `finished` and `repeated`.
        refusals: tasks that were never run, by the kind of refusal.
        core: the tasks that are not finished.
        journal: how long it took to write.
    """
    tasks = core.tasks.values()
    running = sum(task.placed is not None for task in tasks)
    refused = sum(refusals[kind] for kind in OUR_FAULT)
    return GatewayMetrics(
        received=counts["received"],
        accepted=counts["accepted"],
        finished=counts["finished"],
        in_flight=len(tasks),
        waiting_for_decision=len(tasks) - running,
        running=running,
        retried=core.retried,
        refused=refused,
        invalid=refusals.total() - refused,
        repeated=counts["repeated"],
        journal_ms=1e3 * journal.write_seconds / max(1, journal.writes),
    )
