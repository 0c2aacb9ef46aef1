"""The live placer, and what only a simulation can ask of it: moving the stages of tasks that run."""

from collections.abc import Sequence

from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import ActiveJob, PlacementPolicy, Rearranging
from splitplace.policies.placement.loading import DemandLoading
from splitplace.policies.prediction import predict
from splitplace.policies.stage_work import StageWork
from splitplace.services.placer.core import PlacerCore, Placing


class RearrangingPlacer(PlacerCore):
    """A placer whose policy may move stages at the end of a scheduling interval, if it is `Rearranging`."""

    def __init__(
        self,
        policy: PlacementPolicy,
        cluster: ClusterView,
        *,
        warm_up: bool = False,
        loading: DemandLoading | None = None,
    ) -> None:
        """A placer that knows no applications yet.

        Args:
            policy: chooses nodes.
            cluster: the view it keeps up to date.
            warm_up: tell nodes with free memory what to load.
            loading: decides anew now and then what nodes hold.
        """
        super().__init__(policy, warm_up=warm_up, loading=loading, cluster=cluster)

    def rearrange(self, active: Sequence[ActiveJob], now_ms: float) -> list[TaskPlaced]:
        """Return the placements of tasks whose stages should move; the ledger counts on them from now on.

        The caller moves the stages, or gives the task another attempt.
        """
        moved: list[TaskPlaced] = []
        if not isinstance(self._policy, Rearranging):
            return moved
        wanted = self._policy.rearrange(active, self._cluster, now_ms)
        for task in active:
            record = self._records.get(task.task)
            nodes = {**task.nodes, **wanted.get(task.task, {})}
            known = self._cluster.nodes.keys() >= set(nodes.values())
            if record is None or nodes == task.nodes or not known:
                continue
            prediction = predict(self._cluster, task.job, nodes, now_ms, due_ms=task.due_ms, idle=True)
            work_ms = {stage: task.remaining[stage] * ms for stage, ms in prediction.work_ms.items()}
            sizes, fragments = task.job.input_bytes, task.job.fragments
            loads = [
                StageWork(
                    node,
                    fragments[stage],
                    work_ms[stage],
                    input_bytes=task.remaining[stage] * sizes[stage],
                )
                for stage, node in nodes.items()
            ]
            self._cluster.placed(task.task, record.attempt, loads, now_ms, due_ms=task.due_ms)
            stages = tuple(
                StagePlacement(stage=stage, node=node, work_ms=work_ms[stage])
                for stage, node in nodes.items()
            )
            placed = record.placing.placed.model_copy(update={"stages": stages, "reason": "moved"})
            record.placing = Placing(placed)
            moved.append(placed)
        return moved
