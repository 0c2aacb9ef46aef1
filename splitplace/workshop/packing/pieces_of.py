"""List the pieces of an application, or those that a network would be cut into."""

from splitplace.messages.application import Application
from splitplace.messages.pieces import NamedChain
from splitplace.policies.memory import described_bytes, least_budget_bytes
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.chain import MeasuredNetwork, chosen_places
from splitplace.workshop.pieces.inspection import InspectedPiece, StoredStage


def stored_pieces(application: Application, micro_batch: int) -> tuple[InspectedPiece, ...]:
    """Return the pieces of every chain of an application, with the figures of its manifest."""
    return tuple(
        piece for chain in application.chains for piece in _of_chain(application, chain, micro_batch)
    )


def stored_stages(application: Application) -> tuple[StoredStage, ...]:
    """Return the stages of all variants, with the memory that nodes and placement count with."""
    found = []
    for variant in application.variants:
        for stage in variant.stages:
            fragment = application.fragment(stage.fragment)
            found.append(
                StoredStage(
                    variant=variant.name,
                    stage=stage.name,
                    weight_bytes=fragment.weight_bytes,
                    budget_bytes=least_budget_bytes(fragment),
                    private_bytes=described_bytes(fragment),
                    is_measured=fragment.memory is not None,
                )
            )
    return tuple(found)


def _of_chain(application: Application, chain: NamedChain, micro_batch: int) -> list[InspectedPiece]:
    cut_by: dict[int, list[str]] = {}
    for variant in application.variants:
        for stage in variant.stages:
            fragment = application.fragment(stage.fragment)
            if fragment.chain == chain.name and fragment.end < len(chain.costs):
                cut_by.setdefault(fragment.end, []).append(variant.name)
    return [
        InspectedPiece(
            chain=chain.name,
            number=number,
            milliseconds=cost.milliseconds_per_image,
            weight_bytes=cost.weight_bytes,
            memory_bytes=cost.weight_bytes + micro_batch * cost.activation_bytes_per_image,
            crossing=tuple(tensor.name for tensor in chain.chain.bundles[number]),
            crossing_bytes=sum(tensor.spec.bytes_per_image for tensor in chain.chain.bundles[number]),
            cut_by=tuple(cut_by.get(number, ())),
        )
        for number, cost in enumerate(chain.costs, start=1)
    ]


def future_pieces(name: str, network: MeasuredNetwork, micro_batch: int) -> tuple[InspectedPiece, ...]:
    """Return the pieces that `models add` would cut a network into, without those of its variants' cuts.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
    """
    chosen = chosen_places(network)
    places = [network.places[number] for number in chosen]
    ends = [0, *(number + 1 for number in chosen), len(network.milliseconds)]
    graph = Graph(network.model)
    crossing = [*((place.tensors, place.bytes_per_image) for place in places), _answer(graph)]
    pieces = []
    for index, cost in enumerate(graph.spans([place.end for place in places])):
        pieces.append(
            InspectedPiece(
                chain=name,
                number=index + 1,
                milliseconds=sum(network.milliseconds[ends[index] : ends[index + 1]]),
                weight_bytes=cost.weight_bytes,
                memory_bytes=cost.weight_bytes + micro_batch * cost.activation_bytes_per_image,
                crossing=crossing[index][0],
                crossing_bytes=crossing[index][1],
            )
        )
    return tuple(pieces)


def _answer(graph: Graph) -> tuple[tuple[str, ...], int]:
    """Return the outputs of a network, and their bytes for an image."""
    return graph.outputs, sum(graph.bytes_per_image(name) for name in graph.outputs)
