"""A quantised network gives nearly the same answers from a quarter of the bytes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from splitplace.edge_node.runtime import load_fragment
from splitplace.workshop.compression.normalisation import recalibrate
from splitplace.workshop.compression.quantization import quantize
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from tests.support.small_networks import EXAMPLE, PIXELS, easy_subset

IMAGES = easy_subset(64).images


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    network = ResNetV2(10, widths=(16, 64), blocks=(1, 1), pixels=PIXELS, stem="halving")
    recalibrate(network, torch.from_numpy(IMAGES))
    return export_network(network, EXAMPLE)


@pytest.fixture(scope="module")
def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(model, IMAGES)


def run(model: onnx.ModelProto, images: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    path = folder / "fragment.onnx"
    path.write_bytes(file_content(model))
    output: NDArray[np.float32] = load_fragment(path).run(images)
    return output


def test_a_node_runs_it_and_its_answers_are_nearly_those_of_the_original(
    model: onnx.ModelProto, quantized: onnx.ModelProto, tmp_path: Path
) -> None:
    images = easy_subset(50, seed=1).images
    expected, answers = (run(each, images, tmp_path) for each in (model, quantized))
    assert answers.dtype == np.float32
    assert 0 < np.abs(answers - expected).max() < 0.1 * np.ptp(expected)


def test_weights_are_bytes_that_use_seven_bits(quantized: onnx.ModelProto) -> None:
    weights = [numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer]
    kernels = [weight for weight in weights if weight.ndim == 4 and weight.size > 1]
    assert kernels
    assert all(kernel.dtype == np.int8 and np.abs(kernel).max() <= 64 for kernel in kernels)


def test_file_and_weights_are_smaller_and_the_work_is_the_same(
    model: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    assert len(file_content(quantized)) < 0.4 * len(file_content(model))
    assert Graph(quantized).weight_bytes < 0.4 * Graph(model).weight_bytes
    assert Graph(quantized).flops_per_image == Graph(model).flops_per_image


def test_it_needs_no_operators_but_the_standard_ones(quantized: onnx.ModelProto) -> None:
    assert [declared.domain for declared in quantized.opset_import] == [""]


def test_ranges_are_those_of_the_calibration_images(
    model: onnx.ModelProto, quantized: onnx.ModelProto, tmp_path: Path
) -> None:
    expected, right, wrong = (
        run(each, IMAGES, tmp_path) for each in (model, quantized, quantize(model, IMAGES // 20))
    )
    assert np.abs(right - expected).mean() < 0.5 * np.abs(wrong - expected).mean()


def test_the_original_stays_as_it_is_and_quantising_it_again_gives_the_same_bytes(
    model: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    before = file_content(model)
    assert file_content(quantize(model, IMAGES)) == file_content(quantized)
    assert file_content(model) == before
