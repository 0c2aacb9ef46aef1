"""What idle nodes should load before anybody asks, as in the paper: fragments are shared at the start.

Without it, a fragment is fetched when it is first needed. A variant that only tasks with tight deadlines
would choose is then never chosen: its fetching alone takes longer than they have.
"""

from collections.abc import Collection, Iterable

from messages.application import Application, Fragment
from policies.cluster import ClusterView


def warm_up(
    applications: Iterable[Application], cluster: ClusterView, names: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Fragments that each of some nodes should load into memory that is free; nothing is evicted for it.

    Each node begins at another place of the catalogue, so that where memory is short, neighbours hold
    different fragments.

    Args:
        applications: the catalogue.
        cluster: memory of the nodes, and what they hold.
        names: which of its nodes are asked about; those not alive are passed over.

    Returns:
        Hashes of fragments by node; nodes with nothing to load are left out.
    """
    fragments = {
        fragment.sha256: fragment for application in applications for fragment in application.fragments
    }
    catalogue = list(fragments.values())
    wanted: dict[str, tuple[str, ...]] = {}
    for place, name in enumerate(sorted(cluster.nodes)):
        if name in names and catalogue:
            start = place % len(catalogue)
            chosen = _fill(cluster, name, catalogue[start:] + catalogue[:start])
            if chosen:
                wanted[name] = chosen
    return wanted


def _fill(cluster: ClusterView, name: str, catalogue: list[Fragment]) -> tuple[str, ...]:
    """As many fragments as fit beside those that the node holds or will hold."""
    held = [
        fragment
        for fragment in catalogue
        if cluster.is_loaded(name, fragment.sha256) or cluster.reserves(name, fragment.sha256)
    ]
    free_bytes = cluster.nodes[name].memory_budget_bytes - sum(one.peak_memory_bytes for one in held)
    known = {fragment.sha256 for fragment in held}
    chosen = []
    for fragment in catalogue:
        if fragment.sha256 not in known and fragment.peak_memory_bytes <= free_bytes:
            free_bytes -= fragment.peak_memory_bytes
            chosen.append(fragment.sha256)
    return tuple(chosen)
