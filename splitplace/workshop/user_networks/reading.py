"""Read ONNX files as people have them: weights beside the file, old operator sets, sizes left open."""

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx.inliner
from onnx import TensorProto, helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from splitplace.edge_node.graph_check import GraphRefusedError, check_bytes
from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import MEBIBYTE
from splitplace.workshop.onnx.aside import folders_of, laid_aside, outside, place_of
from splitplace.workshop.onnx.branches import all_nodes, inner_graphs
from splitplace.workshop.onnx.light import LARGE_MODEL_BYTES, LARGE_WEIGHT_BYTES, is_outside, without_weights
from splitplace.workshop.onnx.skimming import skimmed
from splitplace.workshop.pieces.constants import with_constants_as_weights
from splitplace.workshop.user_networks.tidying import UntidyError, tidied

OLDEST_OPSET = 7
"""Oldest operator set that ONNX Runtime promises to run."""
PLAIN_OPSET = 10
"""Oldest operator set that pieces can have as it is: `Slice` takes its bounds as inputs from here on."""
CONVERTED_OPSET = 13
"""Operator set that older files are converted to."""
MAX_MESSAGE_BYTES = 2047 * MEBIBYTE
"""Largest ONNX file, without weights in other files: a protobuf message has less than 2 GiB."""
_OLDEST_IR_WITHOUT_DOUBLES = 4
"""From this version of the format on, a weight need not stand among the inputs."""
_TWO_IN_A_BYTE = frozenset({TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1})
_ANY_BYTES = 1 << 62
"""Limit of tensors where only functions and loops are checked."""
_PLACE_IN_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\)(?: const)? (?=[A-Z\[])")
"""Where ONNX Runtime's errors say which of its own functions found them."""


class UserNetworkError(SplitPlaceError):
    """The network cannot be used; the message says why and what would help."""


def first_line(error: Exception) -> str:
    """Return the first line of an error, at most 200 letters."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return _PLACE_IN_SOURCE.sub("", line)[:200]


def read_onnx(path: Path, aside: Path, large_bytes: int = LARGE_MODEL_BYTES) -> onnx.ModelProto:
    """Read a file, and the weights that it keeps in files of its own folder.

    Args:
        path: The file.
        aside: Empty folder that stays for as long as the model is used: the large weights of a large network
            are written there, if they do not lie in files of their own already.
        large_bytes: Networks above this size are large: their weights are mapped from a file, not held.

    Raises:
        UserNetworkError: The file is missing, too large, no ONNX model, or names weights outside its folder.
    """
    if path.is_file() and path.stat().st_size > MAX_MESSAGE_BYTES:
        raise UserNetworkError(
            f"{path} has more than {MAX_MESSAGE_BYTES // MEBIBYTE} MiB: export it with its weights in a file "
            "of their own (external data)"
        )
    large: dict[int, onnx.TensorProto] = {}
    try:
        if path.stat().st_size > large_bytes:
            model, large = skimmed(path, aside / "inside")
        else:
            model = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no base class with those of files
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise _no_room(path, aside, error) from error
        raise UserNetworkError(_unreadable(path, error)) from error
    if not model.HasField("graph"):
        raise UserNetworkError(f"{path} holds no network")
    try:
        tidied(model, MAX_MESSAGE_BYTES)
    except UntidyError as error:
        raise UserNetworkError(f"{path}: {error}") from error
    model = _with_weights(model, large, path, aside, large_bytes)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for value in inputs:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_value < 0:  # some exporters write -1 for an open size
                side.Clear()
    del model.graph.input[:]  # early files name each weight among the inputs as well
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _OLDEST_IR_WITHOUT_DOUBLES)
    return model


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{path}: {error.strerror}"
    return f"{path} cannot be read as an ONNX model: {first_line(error)}"


def _no_room(path: Path, aside: Path, error: OSError) -> UserNetworkError:
    return UserNetworkError(
        f"the weights of {path} cannot be written to {aside} (TMPDIR names another place): {error.strerror}"
    )


def in_one_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without functions of its own: what they do stands where they are called.

    Sets of operators that nothing uses are left out. A model without either is returned as it is.

    Raises:
        UserNetworkError: They call themselves, become too many operators, or one of them is missing.
    """
    if model.functions:
        try:
            check_loops(model)
        except GraphRefusedError as error:  # before they are put in place: that may take any time and memory
            raise UserNetworkError(f"no node would run this network: {error}") from error
        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:  # the inliner's C++ exceptions share no base class
            raise UserNetworkError(f"its functions cannot be put in place: {first_line(error)}") from error
    used = {plain_domain(node.domain) for node in all_nodes(model.graph)} | {""}
    unused = [item for item in model.opset_import if plain_domain(item.domain) not in used]
    if not unused:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kept = [item for item in model.opset_import if plain_domain(item.domain) in used]
    del changed.opset_import[:]
    changed.opset_import.extend(kept)
    return changed


def check_loops(model: onnx.ModelProto) -> None:
    """Raise GraphRefusedError where functions or loops of a model may take any time. Sizes do not count."""
    check_bytes(without_weights(model)[0].SerializeToString(), _ANY_BYTES)


def plain_domain(domain: str) -> str:
    """Return the domain of operators by the shorter of its names."""
    return "" if domain == "ai.onnx" else domain


def in_readable_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in an operator set that pieces can have: itself, or converted by `onnx`.

    Raises:
        UserNetworkError: It is older than `OLDEST_OPSET`, or cannot be converted.
    """
    opset = opset_of(model)
    if opset >= PLAIN_OPSET:
        return model
    if opset < OLDEST_OPSET:
        raise UserNetworkError(
            f"the model uses opset {opset}; ONNX Runtime runs {OLDEST_OPSET} and newer: export it again"
        )
    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(model, CONVERTED_OPSET)
    except Exception as error:  # the converter's C++ exceptions share no base class
        raise UserNetworkError(
            f"the model uses opset {opset}, and onnx cannot convert it to {CONVERTED_OPSET} "
            f"({first_line(error)}): export it again with opset {PLAIN_OPSET} or newer"
        ) from error
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses; 0 if it does not say."""
    return next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)


def with_sides(
    model: onnx.ModelProto, name: str, sides: Sequence[int], axis: int | None = 0
) -> onnx.ModelProto:
    """Return a model whose input has these sizes beside the batch; shapes that follow are forgotten.

    Args:
        model: The model. It is not changed.
        name: The input.
        sides: Its sizes beside the batch, in the model's order.
        axis: The axis of the batch; None where the input has none.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (value,) = (each for each in changed.graph.input if each.name == name)
    dimensions = enumerate(value.type.tensor_type.shape.dim)
    for dimension, side in zip([each for at, each in dimensions if at != axis], sides, strict=True):
        dimension.dim_value = side
    del changed.graph.value_info[:]
    for output in changed.graph.output:
        for dimension in output.type.tensor_type.shape.dim[1:]:
            dimension.Clear()
    return changed


def _with_weights(
    model: onnx.ModelProto, large: Mapping[int, onnx.TensorProto], path: Path, aside: Path, large_bytes: int
) -> onnx.ModelProto:
    """Return a model that holds all its weights, or whose large ones lie in files of one folder."""
    _check_files(model, path)
    outer = list(filter(is_outside, _tensors(model.graph)))
    is_large = path.stat().st_size + sum(_size(tensor, path) for tensor in outer) > large_bytes
    for tensor in filter(is_outside, model.graph.initializer):
        part = _part(tensor, path)
        if is_large and _may_be_mapped(tensor, part):
            tensor.CopyFrom(outside(tensor, *part))
        else:
            _load(tensor, path, part)
    for tensor in filter(is_outside, _tensors_of_nodes(model.graph)):
        _load(tensor, path, _part(tensor, path))
    for number, tensor in large.items():
        model.graph.initializer[number].CopyFrom(tensor)
    held_bytes = sum(tensor.ByteSize() for tensor in _tensors(model.graph))
    if held_bytes <= large_bytes and len(folders_of(model)) <= 1:
        return model
    try:
        return laid_aside(with_constants_as_weights(model), aside / "weights")
    except OSError as error:
        raise _no_room(path, aside, error) from error


class _Part(NamedTuple):
    """Where the bytes of a weight lie."""

    file: Path
    offset: int
    length: int


def _size(tensor: onnx.TensorProto, path: Path) -> int:
    """Return the bytes of a weight in its file."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        dtype = None
    if dtype is None or dtype.hasobject:
        raise UserNetworkError(f"{path}: the weight {tensor.name[:80]!r} has no known type")
    if any(side < 0 for side in tensor.dims):
        raise UserNetworkError(f"{path}: the weight {tensor.name[:80]!r} has a side below 0")
    values = prod(map(int, tensor.dims))
    return -(-values // 2) if tensor.data_type in _TWO_IN_A_BYTE else values * int(dtype.itemsize)


def _part(tensor: onnx.TensorProto, path: Path) -> _Part:
    """Return where a weight lies, if that is there."""
    location, offset, length = place_of(tensor)
    file, size = path.resolve().parent / location, _size(tensor, path)
    if offset < 0 or length not in {None, size} or offset + size > file.stat().st_size:
        raise UserNetworkError(
            f"{path}: the weight {tensor.name[:80]!r} of {size} bytes cannot be read from byte {offset} on "
            f"of {location}, which has {file.stat().st_size}"
        )
    return _Part(file, offset, size)


def _may_be_mapped(tensor: onnx.TensorProto, part: _Part) -> bool:
    """Whether a weight is large and lies in its file as it would in memory."""
    if part.length <= LARGE_WEIGHT_BYTES or tensor.data_type in _TWO_IN_A_BYTE:
        return False
    return part.offset % int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize) == 0


def _load(tensor: onnx.TensorProto, path: Path, part: _Part) -> None:
    """Read a weight from its file into a model."""
    try:
        # Its length is said: without it, all that follows in the file is read.
        tensor.CopyFrom(outside(tensor, place_of(tensor).location, part.offset, part.length))
        load_external_data_for_tensor(tensor, str(path.resolve().parent))
    except Exception as error:  # of files, and those of onnx's checks
        raise UserNetworkError(
            f"{path}: the weight {tensor.name[:80]!r} cannot be read: {first_line(error)}"
        ) from error
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _check_files(model: onnx.ModelProto, path: Path) -> None:
    """Raise UserNetworkError if weights lie in files that are not there, or not in the model's folder."""
    folder = path.resolve().parent
    files = dict.fromkeys(_location(tensor, path) for tensor in filter(is_outside, _tensors(model.graph)))
    for file in files:
        place = folder / file
        if "\0" in file or place.resolve().parent != folder:
            raise UserNetworkError(f"{path} keeps weights in {file!r}: only files of its own folder are read")
        if not place.is_file():
            # Caches of downloads keep links whose files have other names.
            advice = ": copy what the links lead to into one folder (cp -L)" if path.is_symlink() else ""
            raise UserNetworkError(f"{path} keeps weights in {file!r}, which is not in its folder{advice}")


def _location(tensor: onnx.TensorProto, path: Path) -> str:
    try:
        return str(ExternalDataInfo(tensor).location)
    except ValueError as error:
        raise UserNetworkError(
            f"{path}: it is not said where the weight {tensor.name[:80]!r} lies: {first_line(error)}"
        ) from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a graph holds: weights, constants, and those of its branches."""
    yield from graph.initializer
    yield from _tensors_of_nodes(graph)


def _tensors_of_nodes(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in inner_graphs(node):
            yield from _tensors(inner)
