"""Exports a torch network as one self-contained ONNX file."""

import warnings
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from models.batch_size import with_plain_sizes
from models.onnx_file import BATCH, finish

OPSET = 20
INPUT_NAME = "images"
OUTPUT_NAME = "logits"


def export_network(network: nn.Module, example: NDArray[Any]) -> onnx.ModelProto:
    """Exports in evaluation mode, with a free batch dimension and all weights inside.

    Args:
        network: One input, one output, batch first.
        example: A batch that it accepts, of at least two items (an export treats a size of one as fixed).

    Returns:
        The checked model, with every intermediate shape inferred.
    """
    network.eval()
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
        msg = "the exporter returned no program"
        raise RuntimeError(msg)
    return finish(with_plain_sizes(program.model_proto))
