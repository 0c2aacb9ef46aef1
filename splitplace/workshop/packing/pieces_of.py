"""List the pieces of an application, or those that a network would be cut into."""

import onnx

from splitplace.messages.application import Application
from splitplace.messages.pieces import NamedChain
from splitplace.workshop.cutting.inspection import InspectedPiece
from splitplace.workshop.cutting.layer_split import cut
from splitplace.workshop.onnx.graph import Graph, without_weights
from splitplace.workshop.pieces.chain import SegmentTimes, chosen_places, measured
from splitplace.workshop.pieces.times import segment_milliseconds


def stored_pieces(application: Application, micro_batch: int) -> tuple[InspectedPiece, ...]:
    """Return the pieces of every chain of an application, with the figures of its manifest."""
    return tuple(
        piece for chain in application.chains for piece in _of_chain(application, chain, micro_batch)
    )


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


def future_pieces(
    name: str, model: onnx.ModelProto, micro_batch: int, measure: SegmentTimes = segment_milliseconds
) -> tuple[InspectedPiece, ...]:
    """Return the pieces that `models add` would cut a network into.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        ConstantError: The network makes weights that are too large.
    """
    network = measured(model, measure)
    places = chosen_places(network)
    tensors = [network.tensors[place] for place in places]
    ends = [0, *(place + 1 for place in places), len(network.milliseconds)]
    pieces = []
    for index, part in enumerate(cut(without_weights(network.model), tensors)):
        graph = Graph(part)
        memory = graph.weight_bytes + micro_batch * graph.peak_activation_bytes_per_image
        pieces.append(
            InspectedPiece(
                chain=name,
                number=index + 1,
                milliseconds=sum(network.milliseconds[ends[index] : ends[index + 1]]),
                weight_bytes=graph.weight_bytes,
                memory_bytes=memory,
                crossing=(graph.output,),
                crossing_bytes=graph.bytes_per_image(graph.output),
            )
        )
    return tuple(pieces)
