"""Read the graph file of a piece and check that it holds nothing but nodes and weights. Pure.

A graph file comes from outside. It may not bring inputs or outputs of its own, functions, or weights in any
file but the piece's own weights file, which it names by its SHA-256. Nodes may hold graphs, as branches of an
`If`; `graph_check` says which of those may run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from splitplace.edge_node.protobuf import ProtobufError, fields, integers, submessage
from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import MAX_GRAPH_FILE_BYTES
from splitplace.messages.pieces import WEIGHT_ALIGNMENT, Piece

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_GRAPH_PARTS = {11: "inputs", 12: "outputs", 2: "a name", 13: "types of tensors", 15: "sparse weights"}
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_GRAPHS = {6, 11}
_INNER_NAME, _INNER_INPUT, _INNER_OUTPUT, _INNER_TYPES = 2, 11, 12, 13
_VALUE_NAME = 1
_ATTRIBUTE_SPARSE = {22, 23}
_TENSOR_DIMENSION, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_ITEM_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13), 64),
    **dict.fromkeys((21, 22), 4),
}
"""Bits of an item, by element type (`onnx.TensorProto.DataType`)."""


MAX_DEPTH = 8
"""Most graphs inside each other."""


class PieceError(SplitPlaceError):
    """A piece that is damaged or malicious, or does not fit its neighbours."""


@dataclass(frozen=True)
class Body:
    """A checked graph file."""

    content: bytes
    made: frozenset[str]
    """Tensors that its nodes compute and its weights hold."""
    read: frozenset[str]
    """Tensors that its nodes read and that it does not make itself."""


def read_body(piece: Piece, content: bytes) -> Body:
    """Check the graph file of a piece, whose hash is right already.

    Raises:
        PieceError: It is too large, no protobuf, or holds something else than nodes and its own weights.
    """
    where = f"piece {piece.graph[:12]}"
    if len(content) > MAX_GRAPH_FILE_BYTES:
        raise PieceError(f"{where}: a graph file of {len(content)} bytes, limit {MAX_GRAPH_FILE_BYTES}")
    try:
        return _Reader(piece).body(content)
    except ProtobufError as error:
        raise PieceError(f"{where}: the graph file is damaged: {error}") from error
    except PieceError as error:
        raise PieceError(f"{where}: {error}") from error


class _Reader:
    def __init__(self, piece: Piece, depth: int = 0) -> None:
        self._piece = piece
        self._depth = depth
        """Number of graphs around this one."""
        self._made: set[str] = set()
        self._read: set[str] = set()

    def body(self, content: bytes) -> Body:
        for number, value in fields(memoryview(content)):
            if number != _MODEL_GRAPH:
                raise PieceError(f"field {number} of the model; only its graph belongs into a piece")
            for part, content_of_part in fields(submessage(value)):
                if part == _GRAPH_NODE:
                    self._node(submessage(content_of_part))
                elif part == _GRAPH_INITIALIZER:
                    self._make(self._tensor(submessage(content_of_part), may_be_external=True))
                else:
                    what = _GRAPH_PARTS.get(part, f"field {part} of the graph")
                    raise PieceError(f"brings {what} of its own; only nodes and weights belong into a piece")
        return Body(content, frozenset(self._made), frozenset(self._read - self._made))

    def _inner(self, graph: memoryview) -> None:
        """Read a graph that a node holds. What it reads and does not make comes from the graphs around it."""
        if self._depth == MAX_DEPTH:
            raise PieceError(f"nodes hold graphs inside each other, more than {MAX_DEPTH} deep")
        inner = _Reader(self._piece, self._depth + 1)
        for part, value in fields(graph):
            if part == _GRAPH_NODE:
                inner._node(submessage(value))
            elif part == _GRAPH_INITIALIZER:
                inner._make(inner._tensor(submessage(value), may_be_external=False))
            elif part == _INNER_INPUT:
                inner._make(_value_name(submessage(value)))
            elif part == _INNER_OUTPUT:
                inner._read.add(_value_name(submessage(value)))
            elif part not in {_INNER_NAME, _INNER_TYPES}:
                raise PieceError(f"a node holds a graph with {_GRAPH_PARTS.get(part, f'field {part}')}")
        self._read |= inner._read - inner._made

    def _make(self, name: str) -> None:
        if name in self._made:
            raise PieceError(f"makes the tensor {name[:80]!r} twice")
        self._made.add(name)

    def _node(self, node: memoryview) -> None:
        for number, value in fields(node):
            if number == _NODE_INPUT and (name := _text(value)):
                self._read.add(name)
            elif number == _NODE_OUTPUT and (name := _text(value)):
                self._make(name)
            elif number == _NODE_ATTRIBUTE:
                self._attribute(submessage(value))

    def _attribute(self, attribute: memoryview) -> None:
        for number, value in fields(attribute):
            if number in _ATTRIBUTE_GRAPHS:
                self._inner(submessage(value))
            if number in _ATTRIBUTE_SPARSE:
                raise PieceError("a node holds a sparse tensor, which is not supported")
            if number in {_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS}:
                self._tensor(submessage(value), may_be_external=False)

    def _tensor(self, tensor: memoryview, *, may_be_external: bool) -> str:
        """Check a tensor and return its name."""
        name, element_type, is_external = "", 0, False
        dimensions: list[int] = []
        entries: dict[str, str] = {}
        for number, value in fields(tensor):
            if number == _TENSOR_NAME:
                name = _text(value)
            elif number == _TENSOR_TYPE and isinstance(value, int):
                element_type = value
            elif number == _TENSOR_DIMENSION:
                dimensions.extend(integers(value))
            elif number == _TENSOR_LOCATION:
                is_external = is_external or value != 0
            elif number == _TENSOR_EXTERNAL:
                _add_entry(entries, submessage(value))
        if (is_external or entries) and not may_be_external:
            raise PieceError("a node's constant lies in another file; it must be a weight")
        if is_external or entries:
            self._check_external(name, entries, _bits(dimensions, element_type))
        return name

    def _check_external(self, name: str, entries: Mapping[str, str], bits: int) -> None:
        location = entries.get("location")
        if self._piece.weights is None or location != self._piece.weights:
            raise PieceError(
                f"the weight {name[:80]!r} lies in {str(location)[:80]!r}, "
                "which is not the piece's own weights file"
            )
        if entries.keys() != {"location", "offset", "length"}:
            raise PieceError(f"the weight {name[:80]!r} is described by {sorted(entries)}")
        offset, length = (_digits(name, entries[key]) for key in ("offset", "length"))
        if offset % WEIGHT_ALIGNMENT or not length or length != -(-bits // 8):
            raise PieceError(
                f"the weight {name[:80]!r} has {length} bytes at {offset}: the wrong size or place"
            )
        if offset + length > self._piece.weights_bytes:
            raise PieceError(f"the weight {name[:80]!r} ends behind the end of its file")


def _add_entry(entries: dict[str, str], payload: memoryview) -> None:
    """Add one of the texts that say where a weight lies. Raise PieceError if it was said before."""
    entry = {number: _text(value) for number, value in fields(payload)}
    key = entry.get(_ENTRY_KEY, "")
    if key in entries:
        raise PieceError(f"a weight says its {key[:80]} twice")
    entries[key] = entry.get(_ENTRY_VALUE, "")


def _bits(dimensions: list[int], element_type: int) -> int:
    """Return the size of a tensor; 0 if it cannot be stored apart."""
    return 0 if min(dimensions, default=0) < 0 else prod(dimensions) * _ITEM_BITS.get(element_type, 0)


def _value_name(value: memoryview) -> str:
    return next((_text(content) for number, content in fields(value) if number == _VALUE_NAME), "")


def _text(value: int | memoryview) -> str:
    """Return a field as text, as the manifest has it."""
    try:
        return str(submessage(value), "utf-8")
    except UnicodeDecodeError as error:
        raise PieceError(f"a name is no text: {error}") from error


def _digits(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 15):  # noqa: PLR2004 - petabytes
        raise PieceError(f"the weight {name[:80]!r} lies at {value[:80]!r}, which is no number")
    return int(value)


def unresolved(bodies: tuple[Body, ...], given: frozenset[str]) -> Iterator[str]:
    """Yield, in order, what bodies read and neither they nor those before them make, beside what is given.

    Raises:
        PieceError: Two bodies make the same tensor, or one makes a tensor that is given.
    """
    made = set(given)
    for body in bodies:
        twice = made & body.made
        if twice:
            raise PieceError(f"two pieces make the same tensor {min(twice)[:80]!r}")
        yield from sorted(body.read - made)
        made |= body.made
