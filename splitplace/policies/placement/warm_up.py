"""Warm-up: what idle nodes load before a task needs it. The paper, too, distributes fragments at the start.

Without it, a fragment is fetched when it is first needed. A variant that only tight deadlines call for would
then never be chosen: fetching alone takes longer than they allow.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import chain, zip_longest

from splitplace.messages.application import Application, Fragment, Variant
from splitplace.policies.cluster import ClusterView


def warm_up(
    applications: Iterable[Application], cluster: ClusterView, names: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the fragments that some nodes should load into free memory; nothing is evicted for them.

    The fastest node chooses first, and each takes what the fewest hold, so that everything is loaded once
    before anything is loaded twice. Applications take turns, so that none is left out where memory is short,
    each with the variant of least work first: tight deadlines call for that fragment on a fast node.

    Args:
        applications: the catalogue.
        cluster: memory of the nodes, and what they hold.
        names: which of its nodes are asked about; those not alive are passed over. The others are taken to
            have loaded, or to be loading, what this told them.

    Returns:
        Hashes of fragments by node; nodes with nothing to load are left out.
    """
    catalogue = catalogue_of(applications)
    held = {
        name: {fragment.sha256 for fragment in catalogue if is_held(cluster, name, fragment)}
        for name in cluster.nodes
    }
    holders = Counter(chain.from_iterable(held.values()))
    wanted: dict[str, tuple[str, ...]] = {}
    for name in sorted(cluster.nodes, key=lambda name: (-cluster.nodes[name].score, name)):
        missing = [fragment for fragment in catalogue if fragment.sha256 not in held[name]]
        needed = {fragment.sha256: cluster.needed_bytes(name, fragment) for fragment in catalogue}
        used_bytes = sum(needed[sha256] for sha256 in held[name])
        free_bytes = cluster.nodes[name].memory_budget_bytes - used_bytes
        rarest = sorted((fragment.sha256 for fragment in missing), key=lambda sha256: holders[sha256])
        chosen = fill(rarest, needed, free_bytes)
        holders.update(chosen)
        if chosen and name in names:
            wanted[name] = chosen
    return wanted


def catalogue_of(applications: Iterable[Application]) -> list[Fragment]:
    """Return every fragment once: applications take turns, each with the variant of least work first."""
    turns = zip_longest(*map(_cheapest_first, applications))
    fragments = (fragment for fragment in chain.from_iterable(turns) if fragment is not None)
    return list({fragment.sha256: fragment for fragment in fragments}.values())


def is_held(cluster: ClusterView, name: str, fragment: Fragment) -> bool:
    """Whether a node holds a fragment, or will for an outstanding task."""
    return cluster.is_loaded(name, fragment.sha256) or cluster.reserves(name, fragment.sha256)


def fill(fragments: Iterable[str], needed: Mapping[str, float], free_bytes: float) -> tuple[str, ...]:
    """Return as many fragments as fit, in this order.

    Args:
        fragments: their hashes.
        needed: the memory that each needs, in bytes.
        free_bytes: memory to fill.
    """
    chosen = []
    for sha256 in fragments:
        if needed[sha256] <= free_bytes:
            free_bytes -= needed[sha256]
            chosen.append(sha256)
    return tuple(chosen)


def _cheapest_first(application: Application) -> list[Fragment]:
    """Return its fragments, those of the variant with the least work first."""
    fragments = {fragment.sha256: fragment for fragment in application.fragments}

    def work(variant: Variant) -> float:
        return sum(fragments[stage.fragment].milliseconds_per_image for stage in variant.stages)

    variants = sorted(application.variants, key=work)
    return [fragments[stage.fragment] for variant in variants for stage in variant.stages]
