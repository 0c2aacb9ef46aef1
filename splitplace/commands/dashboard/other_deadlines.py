"""How a task would have been split with other deadlines, all else as it was at its decision. Pure."""

from dataclasses import replace

from splitplace.commands.dashboard.on_request import OtherDeadline
from splitplace.commands.dashboard.regret import known_policy
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.messages.application import Application
from splitplace.messages.limits import MIN_DEADLINE_MS
from splitplace.policies.replay import logged_context
from splitplace.policies.splitting import split_policy

FACTORS = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Deadlines that are tried, over the task's own."""


def other_deadlines(record: TaskRecord, application: Application | None) -> tuple[OtherDeadline, ...]:
    """Ask the policy that decided on a task about other deadlines. Empty where nothing was decided yet.

    The policy begins without experience, and sees what the splitter saw: the same nodes, queues and
    predictions.
    """
    decided = next((each.decided for _, each in sorted(record.attempts.items()) if each.decided), None)
    name = known_policy(decided.policy) if decided else None
    if decided is None or name is None:
        return ()
    context = logged_context(decided)
    spent_ms = context.deadline_ms - context.slack_ms
    stages = {each.name: len(each.stages) for each in application.variants} if application else {}
    found = []
    for deadline_ms in sorted({max(MIN_DEADLINE_MS, round(context.deadline_ms * each)) for each in FACTORS}):
        asked = replace(context, deadline_ms=deadline_ms, slack_ms=deadline_ms - spent_ms)
        choice = split_policy(name).decide(asked)
        variant, reason = choice.variant, choice.reason
        if variant is not None and choice.scores:  # what it draws is chance; what it thinks best is not
            variant = max(choice.scores, key=choice.scores.__getitem__)
            reason = f"best score: {choice.scores[variant]:.3f}" if variant != choice.variant else reason
        estimates = [each for each in decided.alternatives if each.variant == variant]
        found.append(
            OtherDeadline(
                deadline_ms=deadline_ms,
                variant=variant,
                stages=stages.get(variant or ""),
                predicted_ms=estimates[0].predicted_ms if estimates else None,
                note=estimates[0].note if estimates else "",
                reason=reason,
            )
        )
    return tuple(found)
