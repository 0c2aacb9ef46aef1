"""The paper's networks at the size they were published for, with random weights: no code of their own."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from splitplace.workshop.cutting.layer_split import cut, cut_points
from splitplace.workshop.networks.catalogue import PRINTED_SIDES, network
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.packing.evaluation import EQUAL_LOGITS

LEAST_POINTS = 24


def answer(model: onnx.ModelProto, array: NDArray[Any]) -> NDArray[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {model.graph.input[0].name: array})[0]
    return result


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["resnet50_v2", "mobilenet_v2", "inception_v3"])
def test_a_full_size_network_is_built_exported_cut_everywhere_and_joined_again(name: str) -> None:
    torch.manual_seed(0)
    side = PRINTED_SIDES[name]
    made: Any = network(name, 10, side=side).eval()
    torch.nn.init.normal_(made.classifier.weight)  # else all logits are nearly equal, whatever goes wrong
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    whole = export_network(made, images)
    points = cut_points(whole)
    assert len(points) >= LEAST_POINTS
    fragments = cut(whole, [point.tensor for point in points])
    assert sum(Graph(part).flops_per_image for part in fragments) == Graph(whole).flops_per_image
    joined: NDArray[Any] = images[:1]
    for fragment in fragments:
        joined = answer(fragment, joined)
    expected = answer(whole, images[:1])
    assert np.ptp(expected) > 100 * EQUAL_LOGITS
    np.testing.assert_allclose(joined, expected, atol=EQUAL_LOGITS, rtol=0)
