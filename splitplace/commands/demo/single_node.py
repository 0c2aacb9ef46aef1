"""What the best single node would give, had it the memory for the whole network. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from splitplace.commands.demo.summary import SensorTask
from splitplace.commands.demo.workload import OVERHEAD_MS, idle
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Placement, PlacementRequest, placement_policy
from splitplace.policies.prediction import Job
from splitplace.policies.scoring import mean, mean_reward

_ENOUGH_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class SingleNode:
    """Calculated figures of a node that runs the whole network alone, one task after the other."""

    node: str
    deadline_hit_rate: float
    reward: float
    mean_ms: float
    """Mean response."""


def best_single_node(
    application: Application, tasks: Sequence[SensorTask], nodes: Iterable[NodeState]
) -> SingleNode | None:
    """Return the best of the nodes for these tasks; None without tasks or a whole network.

    Nothing is run: times are the placer's predictions for the node, idle and with enough memory. Tasks wait
    for those before them. All are answered, however late, with the accuracy of the whole network.
    """
    whole = next((each for each in application.variants if each.kind == "whole"), None)
    if whole is None or not tasks:
        return None
    found = []
    for node in nodes:
        cluster = ClusterView()
        state = idle(application, node).model_copy(update={"memory_budget_bytes": _ENOUGH_BYTES})
        cluster.apply(ClusterState(sequence=0, nodes=(state,)), 0.0)
        free_ms, in_time, responses_ms = 0.0, [], []
        for task in sorted(tasks, key=lambda each: each.published_s):
            placed = placement_policy("earliest-finish").place(
                PlacementRequest("t", Job(application, whole, task.batch), 0.0), cluster, 0.0
            )
            if not isinstance(placed, Placement):
                break
            arrival_ms = 1000 * task.published_s
            free_ms = max(free_ms, arrival_ms) + placed.prediction.response_ms
            responses_ms.append(free_ms + OVERHEAD_MS - arrival_ms)
            in_time.append(responses_ms[-1] <= task.deadline_ms)
        if len(in_time) == len(tasks):
            found.append(
                SingleNode(
                    node.node,
                    mean(in_time) or 0.0,
                    mean_reward([(on_time, whole.accuracy) for on_time in in_time]) or 0.0,
                    mean(responses_ms) or 0.0,
                )
            )
    return max(found, key=lambda each: (each.reward, -each.mean_ms), default=None)
