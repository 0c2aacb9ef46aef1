"""Hints to nodes about what they should load before a task needs it. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, PrepareFragments
from splitplace.messages.limits import MAX_STAGES
from splitplace.messages.pieces import PieceRun
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Placement
from splitplace.policies.placement.loading import NodeChange

WARM_UP_TASK = "placer.warm-up"
"""Task key in hints that no task caused."""


def warm_up_hints(wanted: Mapping[str, tuple[str, ...]]) -> list[PrepareFragments]:
    """Return hints to load fragments, by node, into free memory."""
    return [_hint(node, part) for node, fragments in wanted.items() for part in _parts(fragments)]


def missing_hints(
    cluster: ClusterView, task: str, attempt: int, found: Placement
) -> tuple[PrepareFragments, ...]:
    """Return hints to nodes that have not loaded what they will need for a task."""
    missing: dict[str, dict[str, PieceRun | None]] = {}
    for share in found.shares:
        fragment = found.job.fragments[share.stage].sha256
        if not cluster.is_loaded(share.node, fragment):
            missing.setdefault(share.node, {})[fragment] = found.job.runs.get(share.stage)
    return tuple(
        PrepareFragments(
            node=node,
            task=task,
            attempt=attempt,
            fragments=tuple(fragments),
            application=found.job.application.name,
            runs=tuple(fragments.values()) if any(fragments.values()) else (),
        )
        for node, fragments in missing.items()
    )


def loading_hints(changes: Iterable[NodeChange]) -> list[PrepareFragments]:
    """Return hints to load what a plan wants, in place of what it does not want.

    A message names the runs of one application, so those that no manifest describes have their own messages.
    """
    hints = []
    for change in changes:
        described = [sha256 for sha256 in change.load if sha256 not in change.runs]
        hints += [_hint(change.node, part, change.gives_way) for part in _parts(described)]
        for application in dict.fromkeys(name for name, _ in change.runs.values()):
            runs = {sha256: run for sha256, (name, run) in change.runs.items() if name == application}
            hints += [
                _hint(change.node, part, change.gives_way).model_copy(
                    update={"application": application, "runs": tuple(runs[sha256] for sha256 in part)}
                )
                for part in _parts([sha256 for sha256 in change.load if sha256 in runs])
            ]
    return hints


def _parts(fragments: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Divide fragments into as many as a message may name."""
    listed = tuple(fragments)
    for start in range(0, len(listed), MAX_STAGES):
        yield listed[start : start + MAX_STAGES]


def _hint(node: str, fragments: tuple[str, ...], gives_way: tuple[str, ...] = ()) -> PrepareFragments:
    return PrepareFragments(
        node=node,
        task=WARM_UP_TASK,
        attempt=1,
        fragments=fragments,
        when_idle=True,
        gives_way=gives_way[:MAX_FRAGMENTS_LISTED],
    )
