"""Find the places where a network can be cut into pieces, and what crosses there. Pure.

Between any two nodes of the data flow, all tensors cross that exist and are read later. A place needs every
one of them to be a batch of a type that can be sent. There are hundreds, so one is kept for each layer:
between two nodes that read a matrix of weights, the one where the fewest bytes cross. Places where a single
tensor crosses are all kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import onnx
from onnx import helper

from splitplace.messages.limits import MAX_BUNDLE_TENSORS
from splitplace.messages.tensors import DType
from splitplace.workshop.cutting.layer_split import CutPoint, expected_share
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.inference import GraphError

Cut = str | tuple[str, ...]
"""Where to cut: the name of the one tensor that crosses, or the names of all."""

_DTYPES: tuple[DType, ...] = get_args(DType)


@dataclass(frozen=True)
class Place:
    """A place between two nodes of the data flow."""

    end: int
    """Number of nodes of the data flow before it."""
    points: tuple[CutPoint, ...]
    """What crosses, in the order in which it is made."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of what crosses."""
        return tuple(point.tensor for point in self.points)

    @property
    def bytes_per_image(self) -> int:
        """Size of all that crosses."""
        return sum(point.bytes_per_image for point in self.points)

    @property
    def sent_bytes_per_image(self) -> float:
        """Size on the wire, for one image."""
        return sum(point.sent_bytes_per_image for point in self.points)

    def with_shares(self, shares: Mapping[str, float]) -> "Place":
        """Return the place with the shares of tensors that were measured."""
        points = tuple(
            replace(point, sent_share=shares.get(point.tensor, point.sent_share)) for point in self.points
        )
        return replace(self, points=points)


def crossing(cut: Cut) -> tuple[str, ...]:
    """Return the names of what crosses at a cut."""
    return (cut,) if isinstance(cut, str) else tuple(cut)


def sent_as(graph: Graph, name: str) -> DType | None:
    """Return the type in which a tensor can be sent; None if nodes cannot send it."""
    found = helper.tensor_dtype_to_np_dtype(graph.element_type(name)).name
    return next((dtype for dtype in _DTYPES if dtype == found), None)


def piece_places(model: onnx.ModelProto) -> tuple[Place, ...]:
    """Return the places where a network can be cut into pieces, in order. See above which are kept.

    Raises:
        GraphError: The graph does not tell a shape that is needed.
    """
    graph = Graph(model)
    order = {name: number for number, name in enumerate(graph.inputs)}
    for node in graph.nodes:
        order |= {name: len(order) + number for number, name in enumerate(node.output)}
    relu = {name for node in graph.nodes if graph.is_after_relu(node) for name in node.output}
    known: dict[str, CutPoint | None] = {}
    kept: list[Place] = []
    layer: list[Place] = []
    for end, (live, reads_next) in enumerate(
        zip(list(graph.live())[:-1], graph.matrices()[1:], strict=True), start=1
    ):
        tensors = sorted(live, key=order.__getitem__)
        for name in tensors:
            if name not in known:
                known[name] = _point(graph, name, after_relu=name in relu)
        points = [point for name in tensors if (point := known[name]) is not None]
        if points and len(points) == len(tensors) <= MAX_BUNDLE_TENSORS:
            layer.append(Place(end, tuple(points)))
        if reads_next:
            kept += _of_layer(layer)
            layer = []
    return (*kept, *_of_layer(layer))


def _of_layer(places: Sequence[Place]) -> list[Place]:
    """Return the places of a layer that are kept; of equal ones the last: operators are fused before it."""
    if not places:
        return []
    least = min(places, key=lambda place: (place.sent_bytes_per_image, -place.end))
    return [place for place in places if len(place.points) == 1 or place is least]


def _point(graph: Graph, name: str, *, after_relu: bool) -> CutPoint | None:
    """Describe a tensor that crosses; None if it cannot be sent."""
    try:
        if not graph.is_batch_first(name) or sent_as(graph, name) is None:
            return None
    except GraphError:
        return None
    return CutPoint(name, graph.bytes_per_image(name), expected_share(after_relu=after_relu))
