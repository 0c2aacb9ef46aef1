"""Which tasks wait for a node to load what they need. Pure."""

from collections.abc import Collection, Iterable, Mapping

from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.messages.groupings import GroupingError, placed_variant
from splitplace.services.gateway.task import Task

REPORTED_WITHIN_MS = 3000.0
"""A node that begins to load a fragment has told so after this time, by a heartbeat and the cluster state."""


class Loading:
    """What nodes have loaded, and what they fetch and load at this moment.

    Loading ends by itself: a node reports what it cannot load, and ends its process where loading hangs.
    """

    def __init__(self, applications: Mapping[str, Application]) -> None:
        """Nothing is known of any node.

        Args:
            applications: the catalogue, live.
        """
        self._applications = applications
        self._loaded: Mapping[str, Collection[str]] = {}
        self._loading: Mapping[str, Collection[str]] = {}

    def report(self, nodes: Iterable[NodeState]) -> None:
        """Take over the newest state of all nodes."""
        known = tuple(nodes)
        self._loaded = {node.node: node.loaded for node in known}
        self._loading = {node.node: node.loading for node in known if node.loads}

    def floor_ms(self, task: Task) -> float:
        """Return how long an attempt that was just placed must be given to tell that it loads something."""
        is_missing = any(
            node in self._loaded and fragment not in self._loaded[node]
            for node, fragment in self._needed(task)
        )
        return REPORTED_WITHIN_MS if is_missing else 0.0

    def holds_up(self, task: Task) -> bool:
        """Whether a node of this attempt loads the fragment of its stage."""
        return any(fragment in self._loading.get(node, ()) for node, fragment in self._needed(task))

    def _needed(self, task: Task) -> list[tuple[str, str]]:
        """Return node and fragment of each stage; nothing if the application or the variant is not known."""
        application = self._applications.get(task.accepted.application)
        if application is None or task.placed is None:
            return []
        try:
            variant = placed_variant(application, task.placed)
        except GroupingError:
            return []
        nodes = {stage.stage: stage.node for stage in task.placed.stages}
        return [(nodes[stage.name], stage.fragment) for stage in variant.stages if stage.name in nodes]
