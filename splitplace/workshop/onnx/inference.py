"""Infer the types and shapes of all tensors of a graph, for one batch size."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

from splitplace.errors import SplitPlaceError
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.onnx.light import LARGE_WEIGHT_BYTES

PROBE_BATCH = 997
"""Batch size for shape inference: a prime that is unlikely to be the size of another dimension."""


class GraphError(SplitPlaceError, ValueError):
    """The graph does not tell a shape or size that is needed."""


def inferred_types(
    model: onnx.ModelProto, sources: Sequence[str]
) -> tuple[int, dict[str, onnx.TypeProto.Tensor]]:
    """Infer types and shapes of all tensors for a batch of `PROBE_BATCH`; of one, where no other fits.

    Returns:
        The batch size, and the types by name.
    """
    inputs = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name in sources]
    if any(sides and sides[0].dim_value == 1 for sides in inputs):
        return 1, _types_for(model, sources, 1)
    try:
        return PROBE_BATCH, _types_for(model, sources, PROBE_BATCH)
    except GraphError:
        try:
            return 1, _types_for(model, sources, 1)
        except GraphError:
            pass
        raise


def types_of_part(
    model: onnx.ModelProto,
    sources: Sequence[str],
    probe: int,
    known: Mapping[str, onnx.TypeProto.Tensor],
) -> tuple[int, dict[str, onnx.TypeProto.Tensor]]:
    """Return the types in a part of a network: as the whole knows them, else as they are inferred.

    Args:
        model: The part.
        sources: Its inputs.
        probe: The batch size that the whole was inferred for.
        known: The types in the whole, by name.

    Returns:
        The batch size, and the types by name.
    """
    try:
        types = _types_for(model, sources, probe)
    except GraphError:
        types = {tensor.name: _type_of(tensor) for tensor in model.graph.initializer}
        for value in model.graph.input:
            if value.name in sources:
                sides = [side.dim_value for side in value.type.tensor_type.shape.dim[1:]]
                element = value.type.tensor_type.elem_type
                types[value.name] = helper.make_tensor_type_proto(element, [probe, *sides]).tensor_type
    made = {name for node in model.graph.node for name in node.output}
    told = {name: known[name] for name in made if name in known and known[name].HasField("shape")}
    return probe, types | told


def _types_for(
    model: onnx.ModelProto, sources: Sequence[str], batch: int
) -> dict[str, onnx.TypeProto.Tensor]:
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    for value in model.graph.input:
        if value.name in sources:
            graph.input.append(value)
            graph.input[-1].type.tensor_type.shape.dim[0].dim_value = batch
    graph.value_info.extend(_told(value, batch) for value in model.graph.value_info)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > LARGE_WEIGHT_BYTES or tensor.data_location == TensorProto.EXTERNAL:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    for value in model.graph.output:
        output = graph.output.add(name=value.name)
        output.type.tensor_type.elem_type = value.type.tensor_type.elem_type
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise GraphError(f"the graph's shapes do not fit together: {error}") from error
    types = {tensor.name: _type_of(tensor) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        is_told = value.type.tensor_type.HasField("shape")
        if is_told or value.name not in types:  # an output may be told as a tensor inside
            types[value.name] = value.type.tensor_type
    return types


def _told(value: onnx.ValueInfoProto, batch: int) -> onnx.ValueInfoProto:
    """Return what a model says of a tensor, for a batch size."""
    told = onnx.ValueInfoProto()
    told.CopyFrom(value)
    for side in told.type.tensor_type.shape.dim:
        times = times_batch(side)
        if times:
            side.dim_value = times * batch
    return told


def times_batch(side: onnx.TensorShapeProto.Dimension) -> int:
    """Return by what a side of a told shape is the batch size times: `batch` or `2*batch`; 0 for others."""
    number, star, name = side.dim_param.rpartition("*")
    if name != BATCH:
        return 0
    return int(number) if star and number.isdecimal() else 0 if star else 1


def _type_of(tensor: onnx.TensorProto) -> onnx.TypeProto.Tensor:
    return helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
