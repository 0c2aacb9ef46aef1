"""Adapt a user's ONNX file: picture bytes in, logits out, any batch size."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.graph_check import GraphRefusedError, check_bytes
from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import MEBIBYTE
from splitplace.workshop.onnx.batch_size import with_plain_sizes
from splitplace.workshop.onnx.file import BATCH, finish
from splitplace.workshop.user_networks.preprocessing import Preprocessing

MIN_OPSET = 13
_PICTURES = "pictures"
"""Name of the input that takes bytes."""
_MAX_CHANNELS = 4
_SAME_ANSWER = 1e-3
"""Greatest accepted difference between the logits of an image alone and in a batch."""


MAX_NETWORK_BYTES = 2047 * MEBIBYTE
"""Largest file that is read: a protobuf message has less than 2 GiB. Nodes get it in pieces."""
MAX_INNER_TENSOR_BYTES = 256 * MEBIBYTE
"""Limit of each tensor inside a network, for one picture."""


class UserNetworkError(SplitPlaceError):
    """The network cannot be used; the message says why and what would help."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a file without loading external data that it refers to.

    Raises:
        UserNetworkError: The file is missing, too large, no ONNX model, or keeps weights in other files.
    """
    if path.is_file() and path.stat().st_size > MAX_NETWORK_BYTES:
        raise UserNetworkError(
            f"{path} is larger than the {MAX_NETWORK_BYTES} bytes that can be read at once"
        )
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no base class with those of files
        raise UserNetworkError(f"{path} cannot be read as an ONNX model: {error}") from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise UserNetworkError(
            f"{path} keeps its weights in other files; save it as one file (onnx.save_model does so)"
        )
    return model


def input_shape(model: onnx.ModelProto) -> tuple[int, int, int]:
    """Return channels, height and width of the pictures that a model expects, whatever their order in it.

    Raises:
        UserNetworkError: The model does not have exactly one input of pictures of one size.
    """
    sides = _sides(model)
    return (sides[2], *sides[:2]) if _is_channels_last(sides) else sides


def adopt(model: onnx.ModelProto, preprocessing: Preprocessing | None) -> onnx.ModelProto:
    """Return the network with a free batch dimension, from bytes to logits.

    A `Softmax` at the end is removed, because logits can be merged and compared.

    Args:
        model: One input of pictures `[N, C, H, W]` or `[N, H, W, C]`, of `uint8` or `float32`, N free or
            fixed. One output `[N, classes]`. The model is not changed.
        preprocessing: Conversion from bytes to the model's `float32` input; None for `uint8`.

    Raises:
        UserNetworkError: The model has another form, or its answer to an image depends on the other images
            of the batch.
    """
    _check_opset(model)
    check_bounds(model)
    sides = _sides(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    source = _input(model)
    is_bytes = source.type.tensor_type.elem_type == TensorProto.UINT8
    if not is_bytes and preprocessing is None:
        raise UserNetworkError(
            "the model reads float32: give the preprocessing from bytes (mean and deviation)"
        )
    _free_batch(graph)
    _remove_softmax(graph)
    shape = input_shape(model)
    nodes, weights = _reading(source.name, None if is_bytes else preprocessing, sides)
    kept = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(weights)
    graph.input.append(helper.make_tensor_value_info(_PICTURES, TensorProto.UINT8, [BATCH, *shape]))
    classes = _check_answers(changed, shape)
    name = graph.output[0].name
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, classes]))
    try:
        return finish(with_plain_sizes(changed))
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserNetworkError(f"the model's shapes cannot be inferred: {error}") from error


def check_bounds(model: onnx.ModelProto) -> None:
    """Refuse, before anything runs, what a node would refuse: work or memory without bound.

    Raises:
        UserNetworkError: The model holds such loops, or tensors that are too large.
    """
    try:
        known = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        known = model  # what does not fit together is said by others, better
    try:
        check_bytes(known.SerializeToString(), MAX_INNER_TENSOR_BYTES)
    except GraphRefusedError as error:
        raise UserNetworkError(f"no node would run this network: {error}") from error


def pictures_without_answer(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return which plain pictures (black, grey, white) a network of bytes answers with NaN or infinity."""
    (source,) = model.graph.input
    shape = tuple(dimension.dim_value for dimension in source.type.tensor_type.shape.dim[1:])
    session = _session(model)
    found = []
    for name, value in (("black", 0), ("grey", 128), ("white", 255)):
        picture = np.full((1, *shape), value, np.uint8)
        if not np.isfinite(np.asarray(session.run(None, {source.name: picture})[0])).all():
            found.append(name)
    return tuple(found)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UserNetworkError(
            f"the model has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "it must have one input of pictures and one output of logits"
        )
    return inputs[0]


def _sides(model: onnx.ModelProto) -> tuple[int, int, int]:
    """Return the dimensions of the input after the batch, in the model's order."""
    source = _input(model)
    tensor = source.type.tensor_type
    sides = tuple(dimension.dim_value for dimension in tensor.shape.dim[1:])
    if len(sides) != 3 or min(sides) < 1 or tensor.elem_type not in {TensorProto.UINT8, TensorProto.FLOAT}:  # noqa: PLR2004
        raise UserNetworkError(
            f"the input {source.name!r} is {list(sides)} after the batch, of type "
            f"{TensorProto.DataType.Name(tensor.elem_type)}; expected three fixed sides of uint8 or float32"
        )
    return sides[0], sides[1], sides[2]


def _is_channels_last(sides: tuple[int, int, int]) -> bool:
    return sides[0] > _MAX_CHANNELS >= sides[2]


def _check_opset(model: onnx.ModelProto) -> None:
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if opset < MIN_OPSET:
        raise UserNetworkError(
            f"the model uses opset {opset}, at least {MIN_OPSET} is needed; "
            f"onnx.version_converter.convert_version(model, {MIN_OPSET}) makes it newer"
        )


def _free_batch(graph: onnx.GraphProto) -> None:
    """Replace sizes that a fixed batch has left in `Reshape` targets, so that any batch works."""
    fixed = next(iter(graph.input)).type.tensor_type.shape.dim[0].dim_value
    if not fixed:
        return
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    targets = {node.input[1] for node in reshapes}
    for index, tensor in enumerate(graph.initializer):
        if tensor.name in targets:
            graph.initializer[index].CopyFrom(_freed(tensor, fixed))
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in targets and node.attribute[0].name == "value":
            node.attribute[0].t.CopyFrom(_freed(node.attribute[0].t, fixed))
    for node in reshapes:
        del node.attribute[:]  # the only attribute, `allowzero`, would give 0 another meaning


def _freed(tensor: onnx.TensorProto, batch: int) -> onnx.TensorProto:
    """Return a `Reshape` target whose first side, if it is the batch size, is copied from the input."""
    target = numpy_helper.to_array(tensor).copy()
    if target.ndim == 1 and len(target) > 1 and target[0] == batch:
        target[0] = 0
    return numpy_helper.from_array(target, tensor.name)


def _remove_softmax(graph: onnx.GraphProto) -> None:
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    if last.op_type in {"Softmax", "LogSoftmax"}:
        graph.output[0].name = last.input[0]
        graph.node.remove(last)


def _reading(
    target: str, preprocessing: Preprocessing | None, sides: tuple[int, int, int]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and weights that make the model's input from bytes `[N, C, H, W]`."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights = []
    if preprocessing is not None:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        for kind, name, values in (
            ("Sub", "pictures.mean", preprocessing.mean_bytes),
            ("Div", "pictures.deviation", preprocessing.deviation_bytes),
        ):
            weights.append(numpy_helper.from_array(np.array(values, np.float32).reshape(-1, 1, 1), name))
            steps.append((kind, [name], {}))
    if _is_channels_last(sides):
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    if not steps:
        steps.append(("Identity", [], {}))
    nodes, current = [], _PICTURES
    for index, (kind, more, attributes) in enumerate(steps):
        made = target if index == len(steps) - 1 else f"{_PICTURES}.{kind}"
        nodes.append(helper.make_node(kind, [current, *more], [made], **attributes))
        current = made
    return nodes, weights


def _check_answers(model: onnx.ModelProto, shape: tuple[int, int, int]) -> int:
    """Run the model on single images and on a batch of them; return the number of classes."""
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    advice = "export it with a free (dynamic) batch dimension"
    try:
        session = _session(model)
        together, *alone = (
            np.asarray(session.run(None, {_PICTURES: batch})[0])
            for batch in (images, *(images[index : index + 1] for index in range(len(images))))
        )
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        raise UserNetworkError(
            f"ONNX Runtime cannot run the model on one picture and on three; {advice}: {error}"
        ) from error
    separately: NDArray[np.float32] = np.concatenate(alone)
    if together.ndim != 2 or together.dtype != np.float32 or together.shape != separately.shape:  # noqa: PLR2004
        found = f"{together.dtype}{list(together.shape)}"
        raise UserNetworkError(f"the output for three pictures is {found}, expected float32[3, classes]")
    if not np.isfinite(separately).all():
        raise UserNetworkError(
            "the model answers random pictures with NaN or infinity; check its weights, --mean and --std"
        )
    if not np.allclose(together, separately, atol=_SAME_ANSWER, rtol=_SAME_ANSWER):
        raise UserNetworkError(
            f"the model's answer to a picture depends on the other pictures of the batch; {advice}"
        )
    return int(together.shape[1])
