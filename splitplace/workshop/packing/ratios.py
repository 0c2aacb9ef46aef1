"""Measure what compression leaves of the outputs of a stored application's pieces."""

from collections.abc import Mapping
from pathlib import Path

from splitplace.messages.application import Application, Fragment
from splitplace.messages.pieces import Bundle, NamedChain
from splitplace.workshop.pieces.loaded import joined_model
from splitplace.workshop.pieces.sizes import sent_shares


def with_output_ratios(application: Application, pieces: Path) -> Application:
    """Return the application with the output ratios of its pieces and fragments measured on random inputs.

    What cannot be measured keeps its ratio.

    Args:
        application: The application.
        pieces: Folder with its files, each named by its hash.

    Raises:
        splitplace.edge_node.stage.pieces.PieceError: A file is missing or damaged.
    """
    chains = {chain.name: _measured(chain, pieces) for chain in application.chains}
    fragments = tuple(
        fragment.model_copy(update={"output_ratio": _ratio(chains[fragment.chain], fragment)})
        if fragment.chain is not None
        else fragment
        for fragment in application.fragments
    )
    return application.model_copy(update={"chains": tuple(chains.values()), "fragments": fragments})


def _ratio(chain: NamedChain, fragment: Fragment) -> float:
    return chain.costs[fragment.end - 1].output_ratio


def _measured(named: NamedChain, pieces: Path) -> NamedChain:
    *between, _answer = named.chain.bundles[1:]
    names = dict.fromkeys(tensor.name for bundle in between for tensor in bundle)
    shares = sent_shares(joined_model(pieces, named.chain.stage(0, len(named.costs))), names)
    if not shares:
        return named
    ratios = [_left(bundle, shares) for bundle in between]
    costs = (
        cost.model_copy(update={"output_ratio": ratio})
        for cost, ratio in zip(named.costs, (*ratios, 1.0), strict=True)
    )
    return named.model_copy(update={"costs": tuple(costs)})


def _left(bundle: Bundle, shares: Mapping[str, float]) -> float:
    sizes = {tensor.name: tensor.spec.bytes_per_image for tensor in bundle}
    sent = sum(size * shares[name] for name, size in sizes.items())
    return round(sent / max(1, sum(sizes.values())), 4)
