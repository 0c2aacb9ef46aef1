"""When a second run of what is overdue or lost may begin, and what it changes in the life of a task. Pure."""

from collections.abc import Mapping

from splitplace.messages.second_run import LostReplica, SecondRun
from splitplace.services.gateway.instructions import Cancel, Dispatch, Instruction
from splitplace.services.gateway.task import RetryRules, Task


def replace_lost(task: Task, node: str, trouble: str, rules: RetryRules, now_ms: float) -> list[Instruction]:
    """Ask for a second run of what is missing of a lost replica. Nothing is asked where none can help.

    Args:
        task: what runs.
        node: the first node that the attempt has lost.
        trouble: why.
        rules: how long to wait for it.
        now_ms: the present moment.
    """
    placed = task.placed
    if rules.replace_ms <= 0 or task.phase != "running" or placed is None:
        return []
    if task.second is not None or task.lost != {node}:
        return []
    if any(stage.micro_batches is None for stage in placed.stages if stage.node == node):
        return []
    task.trouble = trouble
    task.retry_at_ms = now_ms + rules.replace_ms
    return [LostReplica(task=task.key, attempt=task.attempt, node=node)]


def is_awaited(task: Task) -> bool:
    """Whether a running attempt has lost a replica, and waits for a second run."""
    return task.phase == "running" and bool(task.lost) and task.second is None


def begin(
    task: Task, second: SecondRun, online: Mapping[str, str], rules: RetryRules, now_ms: float
) -> list[Instruction]:
    """Let what is overdue or lost of an attempt leave the queues that it waits in, and run it elsewhere.

    For a lost replica that is its own queue only: branches that did not come through it go on elsewhere.
    From now on the attempt depends on other nodes (`Task.needed_nodes`). Nothing happens where the attempt
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
    task.boots = {node: online[node] for node in task.needed_nodes if node in online}
    task.retry_at_ms = max(task.retry_at_ms, now_ms + rules.patience_ms(task))
    left = task.placed.nodes if second.lost is None else (second.lost,)
    return [
        Cancel(task.key, task.attempt, left, second.micro_batches),
        Dispatch(
            task.key, task.attempt, task.accepted.application, task.placed, rules.expires_at_ms(task), second
        ),
    ]
