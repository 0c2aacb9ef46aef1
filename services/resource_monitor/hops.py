"""What a hop through the broker takes besides bytes and computing, measured from tasks that ended. Pure.

A task of one micro-batch whose stages form a chain has nothing side by side. What is left of its time since
the decision, without queues, computing, transfers and the way to and from its nodes, was spent in hops.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from statistics import median

from splitplace.messages.application import INPUT, Application, Variant
from splitplace.messages.cluster import NodeState
from splitplace.messages.task import TaskFinished, TaskPlaced
from splitplace.policies import cost

HOPS_BESIDE_STAGES = 4
"""Decision to placer, placement to gateway, last stage to aggregator, result to gateway."""
NEWEST = 50
"""Number of most recent tasks that count."""
FEWEST = 5
"""Number of tasks before their median says something."""
MOST_TRANSFER = 0.5
"""Tasks that spend a larger share of their time in transfers say more of links than of hops."""
_MAX_PLACEMENTS = 4096


class HopMeter:
    """The time of a hop in this system, at present."""

    def __init__(self) -> None:
        self._applications: dict[str, Application] = {}
        self._placed: OrderedDict[str, TaskPlaced] = OrderedDict()
        self._seen_ms = deque[float](maxlen=NEWEST)

    @property
    def hop_ms(self) -> float | None:
        """The median of the most recent tasks; None before there were enough."""
        return round(median(self._seen_ms), 3) if len(self._seen_ms) >= FEWEST else None

    def add_application(self, application: Application) -> None:
        """Note a catalogue entry."""
        self._applications[application.name] = application

    def placed(self, placed: TaskPlaced) -> None:
        """Note the placement of an attempt."""
        self._placed[placed.task] = placed
        self._placed.move_to_end(placed.task)
        if len(self._placed) > _MAX_PLACEMENTS:
            self._placed.popitem(last=False)

    def finished(self, finished: TaskFinished, nodes: Mapping[str, NodeState]) -> None:
        """Learn from the end of a task.

        Args:
            finished: how it ended.
            nodes: the nodes as they are known now.
        """
        placed = self._placed.pop(finished.task, None)
        variant = self._chain(placed)
        if placed is None or variant is None or placed.attempt != finished.attempt:
            return
        if not finished.in_full or finished.after_decision_ms is None or placed.batch > placed.micro_batch:
            return
        if {report.stage for report in finished.stages} != {stage.name for stage in variant.stages}:
            return
        on = {stage.stage: nodes.get(stage.node) for stage in placed.stages}
        states = [on.get(stage.name) for stage in variant.stages]
        way_ms = _way_ms(self._applications[placed.application], variant, placed.batch, states)
        if way_ms is None or way_ms > MOST_TRANSFER * finished.after_decision_ms:
            return
        busy_ms = sum(report.queue_ms + report.compute_ms for report in finished.stages)
        left_ms = finished.after_decision_ms - busy_ms - way_ms
        self._seen_ms.append(max(0.0, left_ms / (HOPS_BESIDE_STAGES + len(variant.stages))))

    def _chain(self, placed: TaskPlaced | None) -> Variant | None:
        """Return the variant of a placement if it is known and its stages form a chain."""
        application = self._applications.get(placed.application) if placed is not None else None
        for variant in application.variants if application is not None else ():
            if placed is not None and variant.name == placed.variant:
                sources = [stage.source for stage in variant.stages]
                names = [stage.name for stage in variant.stages]
                return variant if sources == [INPUT, *names[:-1]] else None
        return None


def _way_ms(
    application: Application, variant: Variant, batch: int, states: list[NodeState | None]
) -> float | None:
    """Return the time of a batch on all links of a chain; None if a node is not known any more."""
    total_ms, before = 0.0, None
    for stage, state in zip(variant.stages, states, strict=True):
        if state is None:
            return None
        size = batch * application.fragment(stage.fragment).input_bytes_per_image
        down = state.link_megabytes_per_second
        if before is None:
            total_ms += cost.transfer_ms(size, down)
        else:
            total_ms += cost.transfer_ms(size, min(before.up, down))
            total_ms += cost.relay_ms(size, max(before.up, down))
        total_ms += 2 * state.latency_ms
        before = state
    return total_ms
