"""Refuses fragments that might run without end or take memory without bound, before ONNX Runtime sees them.

What counts:

- `If` is allowed. `Loop` needs a trip count that is a constant of the file; its condition can only end it
  earlier. `Scan` needs inputs of a constant length. Nested ones multiply, up to `MAX_TRIPS` altogether. No
  other operator may hold a graph.
- Functions of the file hold no loops, and no more than `MAX_NODES` nodes after all calls are expanded.
- No tensor whose size stands in the file is larger than a limit.

Sizes that only show at run time are bounded by the memory of all sessions (`sessions.limit_memory`), and time
by the watchdog.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

from splitplace.edge_node.protobuf import ProtobufError, fields, integers, submessage, text
from splitplace.errors import SplitPlaceError

MAX_TRIPS: Final = 10_000
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 8

_MODEL_PARTS: Final = (7, 25)
_MODEL_GRAPH, _MODEL_FUNCTION = _MODEL_PARTS
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_VALUES = 1, 5, 11, (11, 12, 13)
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN = 1, 7, 10
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 5, 8
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_INT64, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 7, 8, 9
_ONNX_DOMAINS = {"", "ai.onnx"}
_INT64 = 7
_ITEM_BYTES = {1: 4, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 4: 2, 5: 2, 16: 2}
"""Bytes of an item by element type, where it has more than one."""


class GraphRefusedError(SplitPlaceError):
    """A network that is not run; the message says why."""


@dataclass(slots=True)
class _Attribute:
    name: str = ""
    number: int | None = None
    numbers: list[int] = field(default_factory=list)
    tensor: memoryview | None = None
    graphs: list[memoryview] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, _Attribute] = field(default_factory=dict)

    @property
    def graphs(self) -> list[memoryview]:
        return [graph for attribute in self.attributes.values() for graph in attribute.graphs]

    @property
    def is_standard(self) -> bool:
        return self.domain in _ONNX_DOMAINS


@dataclass(slots=True)
class _Scope:
    """Constants and shapes that are visible in a graph."""

    tensors: dict[str, memoryview] = field(default_factory=dict)
    shapes: dict[str, list[int | None]] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    """Inputs and results of nodes. They are no constants, even if an outer graph has one of that name."""

    def add_constant(self, name: str, tensor: memoryview) -> None:
        if name in self.tensors:
            raise GraphRefusedError(f"it has two constants of the name {name[:80]!r}")
        self.tensors[name] = tensor


def check_bytes(content: bytes, max_tensor_bytes: int) -> None:
    """Check a network in one file.

    Args:
        content: an ONNX file.
        max_tensor_bytes: limit of each tensor, for one input where its size depends on the batch.

    Raises:
        GraphRefusedError: it may run without end, or take too much memory, or is no ONNX file.
    """
    reason = _reason(memoryview(content), max_tensor_bytes)
    if reason:
        raise GraphRefusedError(reason)


def check_stage(model: bytes, max_tensor_bytes: int) -> None:
    """Check a joined stage, whose graphs are read as one, as `check_bytes` does. Raises GraphRefusedError."""
    reason = _reason(memoryview(model), max_tensor_bytes, is_joined=True)
    if reason:
        raise GraphRefusedError(reason)


def _reason(content: memoryview, max_tensor_bytes: int, *, is_joined: bool = False) -> str:
    """Return why a model is refused; empty if it is not. No view of the content outlives the call."""
    try:
        _Check(max_tensor_bytes).model(content, is_joined=is_joined)
    except GraphRefusedError as error:
        return str(error)
    except ProtobufError as error:
        return f"it is no ONNX file: {error}"
    return ""


class _Check:
    def __init__(self, max_tensor_bytes: int) -> None:
        self._max_tensor_bytes = max_tensor_bytes
        self._functions: dict[tuple[str, str], list[_Node]] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._nodes = 0

    def model(self, content: memoryview, *, is_joined: bool) -> None:
        parts = [(number, submessage(value)) for number, value in fields(content) if number in _MODEL_PARTS]
        graphs = [part for number, part in parts if number == _MODEL_GRAPH]
        if not graphs or (len(graphs) > 1 and not is_joined):
            raise GraphRefusedError("it must have exactly one graph")
        for number, part in parts:
            if number == _MODEL_FUNCTION:
                self._function(part)
        self._graph(graphs, (), trips=1, depth=0)

    def _function(self, content: memoryview) -> None:
        name = domain = ""
        nodes = []
        for number, value in fields(content):
            if number == _FUNCTION_NAME:
                name = text(value)
            elif number == _FUNCTION_DOMAIN:
                domain = text(value)
            elif number == _FUNCTION_NODE:
                nodes.append(_node(submessage(value)))
        for node in nodes:
            self._check_function_node(node, name, 0)
        self._functions[domain, name] = nodes

    def _check_function_node(self, node: _Node, name: str, depth: int) -> None:
        if node.operator in {"Loop", "Scan"} or (node.graphs and node.operator != "If"):
            raise GraphRefusedError(
                f"the function {name} holds {node.operator}, whose length is not constant"
            )
        if depth > MAX_DEPTH:
            raise GraphRefusedError(f"graphs are nested more than {MAX_DEPTH} deep")
        for graph in node.graphs:
            for number, value in fields(graph):
                if number == _GRAPH_NODE:
                    self._check_function_node(_node(submessage(value)), name, depth + 1)

    def _graph(
        self, parts: Sequence[memoryview], outer: tuple[_Scope, ...], *, trips: int, depth: int
    ) -> None:
        if depth > MAX_DEPTH:
            raise GraphRefusedError(f"graphs are nested more than {MAX_DEPTH} deep")
        scope, nodes = _Scope(), []
        for number, value in (each for part in parts for each in fields(part)):
            if number == _GRAPH_NODE:
                node = _node(submessage(value))
                nodes.append(node)
                constant = node.attributes.get("value") if node.is_standard else None
                if node.operator == "Constant" and constant is not None and constant.tensor is not None:
                    scope.add_constant(node.outputs[0] if node.outputs else "", constant.tensor)
                else:
                    scope.made.update(node.outputs)
            elif number == _GRAPH_INITIALIZER:
                scope.add_constant(_tensor_name(submessage(value)), submessage(value))
            elif number in _GRAPH_VALUES:
                name, shape, item_bytes = _value(submessage(value))
                scope.shapes[name] = shape
                if number == _GRAPH_INPUT:
                    scope.made.add(name)
                self._check_size(name, [size or 1 for size in shape], item_bytes)
        scopes = (scope, *outer)
        for node in nodes:
            self._check_node(node, scopes, trips, depth)

    def _check_node(self, node: _Node, scopes: tuple[_Scope, ...], trips: int, depth: int) -> None:
        self._nodes += 1 + self._expanded(node, ())
        if self._nodes > MAX_NODES:
            raise GraphRefusedError(f"it has more than {MAX_NODES} nodes after functions are expanded")
        if node.operator == "ConstantOfShape" and node.is_standard and node.inputs:
            self._check_filled(node, scopes)
        if node.operator in {"Loop", "Scan"} and node.is_standard:
            own = _loop_trips(node, scopes) if node.operator == "Loop" else _scan_trips(node, scopes)
            if own is None:
                raise GraphRefusedError(
                    f"{node.operator} has no constant number of turns: export the network with it unrolled"
                )
            trips *= max(1, own)
            if trips > MAX_TRIPS:
                raise GraphRefusedError(f"{node.operator} makes {trips} turns; the limit is {MAX_TRIPS}")
        elif node.graphs and not (node.operator == "If" and node.is_standard):
            raise GraphRefusedError(f"{node.operator} holds a graph; only If, Loop and Scan may")
        for graph in node.graphs:
            self._graph([graph], scopes, trips=trips, depth=depth + 1)

    def _expanded(self, node: _Node, callers: tuple[tuple[str, str], ...]) -> int:
        """Return how many nodes a call of a function becomes; 0 for an operator."""
        key = node.domain, node.operator
        body = self._functions.get(key)
        if body is None:
            return 0
        if key in callers:
            raise GraphRefusedError(f"the function {node.operator} calls itself")
        if len(callers) > MAX_DEPTH * 8:
            raise GraphRefusedError("functions call each other too deeply")
        if key not in self._sizes:
            self._sizes[key] = sum(1 + self._expanded(each, (*callers, key)) for each in _with_inner(body))
        return self._sizes[key]

    def _check_filled(self, node: _Node, scopes: tuple[_Scope, ...]) -> None:
        shape = _integers_of(_find(scopes, node.inputs[0]))
        if shape is not None and all(size >= 0 for size in shape):
            given = node.attributes.get("value")
            kind = _element_type(given.tensor) if given is not None and given.tensor is not None else 1
            self._check_size(node.outputs[0] if node.outputs else "", shape, _ITEM_BYTES.get(kind, 1))

    def _check_size(self, name: str, shape: list[int], item_bytes: int) -> None:
        size = prod(shape) * item_bytes
        if size > self._max_tensor_bytes:
            raise GraphRefusedError(
                f"its tensor {name[:80]!r} takes {size} bytes for one input; "
                f"the limit is {self._max_tensor_bytes}"
            )


def _with_inner(nodes: list[_Node]) -> Iterator[_Node]:
    for node in nodes:
        yield node
        for graph in node.graphs:
            yield from _with_inner(
                [_node(submessage(value)) for number, value in fields(graph) if number == _GRAPH_NODE]
            )


def _loop_trips(node: _Node, scopes: tuple[_Scope, ...]) -> int | None:
    """Return the most turns of a `Loop`; None if that is not constant."""
    count = _integers_of(_find(scopes, node.inputs[0])) if node.inputs and node.inputs[0] else None
    return count[0] if count is not None and len(count) == 1 else None


def _scan_trips(node: _Node, scopes: tuple[_Scope, ...]) -> int | None:
    """Return the turns of a `Scan`; None if that is not constant."""
    number = node.attributes.get("num_scan_inputs")
    count = number.number if number is not None else None
    if count is None or not 0 < count <= len(node.inputs):
        return None
    axes = node.attributes["scan_input_axes"].numbers if "scan_input_axes" in node.attributes else [0] * count
    if len(axes) != count:
        return None
    lengths = []
    for name, axis in zip(node.inputs[-count:], axes, strict=True):
        shape = _shape(scopes, name)
        if shape is None or not -len(shape) <= axis < len(shape):
            return None
        lengths.append(shape[axis])
    known = [length for length in lengths if length is not None]
    return min(known) if known else None  # all have the same length, or the run fails


def _find(scopes: tuple[_Scope, ...], name: str) -> memoryview | None:
    for scope in scopes:
        if name in scope.tensors:
            return scope.tensors[name]
        if name in scope.made:
            return None
    return None


def _shape(scopes: tuple[_Scope, ...], name: str) -> list[int | None] | None:
    tensor = _find(scopes, name)
    if tensor is not None:
        return [*_dims(tensor)]
    return next((scope.shapes[name] for scope in scopes if name in scope.shapes), None)


def _node(content: memoryview) -> _Node:
    node = _Node()
    for number, value in fields(content):
        if number == _NODE_INPUT:
            node.inputs.append(text(value))
        elif number == _NODE_OUTPUT:
            node.outputs.append(text(value))
        elif number == _NODE_TYPE:
            node.operator = text(value)
        elif number == _NODE_DOMAIN:
            node.domain = text(value)
        elif number == _NODE_ATTRIBUTE:
            attribute = _attribute(submessage(value))
            if attribute.name in node.attributes:
                raise GraphRefusedError(f"{node.operator} has the attribute {attribute.name[:80]!r} twice")
            node.attributes[attribute.name] = attribute
    return node


def _attribute(content: memoryview) -> _Attribute:
    made = _Attribute()
    for number, value in fields(content):
        if number == _ATTRIBUTE_NAME:
            made.name = text(value)
        elif number == _ATTRIBUTE_INT:
            made.number = integers(value)[0] if isinstance(value, int) else None
        elif number == _ATTRIBUTE_INTS:
            made.numbers += integers(value)
        elif number == _ATTRIBUTE_TENSOR:
            if made.tensor is not None:  # readers would merge the two
                raise GraphRefusedError(f"the attribute {made.name[:80]!r} has two values")
            made.tensor = submessage(value)
        elif number in _ATTRIBUTE_GRAPHS:
            made.graphs.append(submessage(value))
    return made


def _tensor_name(tensor: memoryview) -> str:
    return next((text(value) for number, value in fields(tensor) if number == _TENSOR_NAME), "")


def _dims(tensor: memoryview) -> list[int]:
    return [size for number, value in fields(tensor) if number == _TENSOR_DIMS for size in integers(value)]


def _element_type(tensor: memoryview) -> int:
    return next(
        (value for number, value in fields(tensor) if number == _TENSOR_TYPE and isinstance(value, int)), 0
    )


def _integers_of(tensor: memoryview | None) -> list[int] | None:
    """Return the values of an int64 tensor with few items; None for any other."""
    if tensor is None or _element_type(tensor) != _INT64 or prod(_dims(tensor)) > MAX_DEPTH * 8:
        return None
    found: list[int] = []
    for number, value in fields(tensor):
        if number == _TENSOR_INT64:
            found += integers(value)
        elif number == _TENSOR_RAW:
            raw = submessage(value)
            found += [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]
    return found if len(found) == prod(_dims(tensor)) else None


def _value(content: memoryview) -> tuple[str, list[int | None], int]:
    """Return name, shape (None for a free side) and bytes of an item, of a `ValueInfoProto` of a tensor."""
    name, shape, item_bytes = "", list[int | None](), 1
    for number, value in fields(content):
        if number == 1:
            name = text(value)
        elif number == 2:  # noqa: PLR2004 - the type
            for kind, tensor in fields(submessage(value)):
                if kind == 1:  # of a tensor
                    item_bytes, shape = _tensor_type(submessage(tensor))
    return name, shape, item_bytes


def _tensor_type(content: memoryview) -> tuple[int, list[int | None]]:
    item_bytes, shape = 1, list[int | None]()
    for number, value in fields(content):
        if number == 1 and isinstance(value, int):
            item_bytes = _ITEM_BYTES.get(value, 1)
        elif number == 2:  # noqa: PLR2004 - the shape
            for _, dimension in fields(submessage(value)):
                sides = dict(_numbers(submessage(dimension)))
                shape.append(sides.get(1))
    return item_bytes, shape


def _numbers(content: memoryview) -> Iterator[tuple[int, int]]:
    for number, value in fields(content):
        if isinstance(value, int):
            yield number, integers(value)[0]
