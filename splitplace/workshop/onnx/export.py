"""Export a torch network as one self-contained ONNX model."""

import logging
import warnings
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from splitplace.workshop.onnx.batch_size import with_plain_sizes
from splitplace.workshop.onnx.file import BATCH, finish

OPSET = 20
INPUT_NAME = "images"
OUTPUT_NAME = "logits"
_LOG_OF_EXPORTER = logging.getLogger("torch.onnx._internal.exporter._registration")


def export_network(network: nn.Module, example: NDArray[Any]) -> onnx.ModelProto:
    """Export in evaluation mode, with a free batch dimension and all weights inside.

    Args:
        network: One input, one output, batch first.
        example: A batch that the network accepts, with at least two items: an export treats a size of 1 as
            fixed.

    Returns:
        The checked model, with every intermediate shape inferred.

    Raises:
        ValueError: The network's code turns the batch size into a Python integer, which fixes it.
    """
    network.eval()
    _LOG_OF_EXPORTER.setLevel(logging.ERROR)  # it warns about torchvision, which is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter uses deprecated parts of torch
        program = torch.onnx.export(
            network,
            (torch.from_numpy(example),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the exporter returned no program")
    model = program.model_proto  # a new one each time
    images = model.graph.input[0].type.tensor_type.shape.dim[0]
    if not images.dim_param:
        raise ValueError(
            f"it answers batches of {images.dim_value} images only, because its code makes the batch's "
            "size a plain number, as len(x) does: write x.size(0), or x.flatten(1)"
        )
    return finish(with_plain_sizes(model))
