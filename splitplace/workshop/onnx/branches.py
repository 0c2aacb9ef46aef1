"""Nodes with graphs of their own: what the branches of an `If` read of the graph around them. Pure."""

from collections.abc import Iterator, Mapping

import onnx


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds, not those within them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, and those of the graphs that they hold."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from all_nodes(inner)


def reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return what a node reads: its inputs, and what its branches take from around them. Each once."""
    names = dict.fromkeys(name for name in node.input if name)
    for graph in inner_graphs(node):
        names |= dict.fromkeys(_from_outside(graph))
    return tuple(names)


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever a node reads or makes them, in its branches too."""
    for part in (node.input, node.output):
        part[:] = [names.get(name, name) for name in part]
    for graph in inner_graphs(node):
        own = _made(graph)
        outer = {name: other for name, other in names.items() if name not in own}
        for inner in graph.node:
            rename(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def inner_weights(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """Yield the weights that the branches of a node hold themselves."""
    for graph in inner_graphs(node):
        yield from graph.initializer
        for inner in graph.node:
            yield from (attribute.t for attribute in inner.attribute if attribute.HasField("t"))
            yield from inner_weights(inner)


def _from_outside(graph: onnx.GraphProto) -> Iterator[str]:
    made = _made(graph)
    read = [name for node in graph.node for name in reads(node)]
    yield from (name for name in (*read, *(value.name for value in graph.output)) if name not in made)


def _made(graph: onnx.GraphProto) -> set[str]:
    return {
        *(value.name for value in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output),
    }
