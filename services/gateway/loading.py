"""Which tasks wait for a node to load what they need. Pure."""

from collections.abc import Collection, Iterable, Mapping
from math import inf

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
        self._moved_ms: dict[tuple[str, str], float] = {}
        """When a node last told that it loads a fragment, or first that it has loaded it."""

    def report(self, nodes: Iterable[NodeState], now_ms: float) -> None:
        """Take over the newest state of all nodes."""
        known = tuple(nodes)
        loaded = {node.node: node.loaded for node in known}
        loading = {node.node: node.loading for node in known if node.loads}
        held = _places(loaded)
        new = {place for place in held - _places(self._loaded) if place[0] in self._loaded}
        moving = new | _places(loading)
        kept = {place: at_ms for place, at_ms in self._moved_ms.items() if place in held}
        self._moved_ms = kept | dict.fromkeys(moving, now_ms)
        self._loaded, self._loading = loaded, loading

    def floor_ms(self, task: Task) -> float:
        """Return how long an attempt that was just placed must be given to tell that it loads something."""
        is_missing = any(
            node in self._loaded and fragment not in self._loaded[node]
            for node, fragment in self._needed(task)
        )
        return REPORTED_WITHIN_MS if is_missing else 0.0

    def excused_until_ms(self, task: Task, now_ms: float) -> float:
        """Return until when an attempt does not stall, because a node loads the fragment of its stage.

        What loads counts as reported now. When a stage is loaded, the next one has as long to tell that it
        loads, and what is computed has as long to cross a link that has just carried files. Minus infinity if
        no node told of it.
        """
        needed = self._needed(task)
        if any(fragment in self._loading.get(node, ()) for node, fragment in needed):
            return now_ms + REPORTED_WITHIN_MS
        moved_ms = max((self._moved_ms.get(place, -inf) for place in needed), default=-inf)
        return moved_ms + REPORTED_WITHIN_MS

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


def _places(fragments: Mapping[str, Collection[str]]) -> set[tuple[str, str]]:
    """Return node and fragment of each."""
    return {(node, fragment) for node, held in fragments.items() for fragment in held}
