"""When a second run of what is overdue may begin, and what it changes in the life of a task. Pure."""

from collections.abc import Mapping

from splitplace.messages.second_run import SecondRun
from splitplace.services.gateway.instructions import Cancel, Dispatch, Instruction
from splitplace.services.gateway.task import RetryRules, Task


def begin(
    task: Task, second: SecondRun, online: Mapping[str, str], rules: RetryRules, now_ms: float
) -> list[Instruction]:
    """Let what is overdue of an attempt leave the queues that it waits in, and run it elsewhere.

    From now on the attempt depends on the nodes of its second run only. Nothing happens where the attempt
    does not run, has a second run already, or one of its nodes is gone.

    Args:
        task: the task, at the attempt of the second run.
        second: as the placer has placed it.
        online: live nodes with their boot ids; empty = not known.
        rules: when to give up.
        now_ms: the present moment.
    """
    if task.phase not in {"running", "degraded"} or task.placed is None or task.second is not None:
        return []
    nodes = set(second.nodes)
    if second.micro_batches[-1] >= task.placed.micro_batch_count or (online and not nodes <= online.keys()):
        return []
    task.second = second
    task.boots = {node: online[node] for node in nodes if node in online}
    task.retry_at_ms = max(task.retry_at_ms, now_ms + rules.patience_ms(task))
    return [
        Cancel(task.key, task.attempt, task.placed.nodes, second.micro_batches),
        Dispatch(
            task.key, task.attempt, task.accepted.application, task.placed, rules.expires_at_ms(task), second
        ),
    ]
