"""Small networks and data sets for tests of the workshop."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from splitplace.workshop.datasets import PUBLISHED, Dataset, Published, Subset
from splitplace.workshop.networks.common import Pixels
from splitplace.workshop.networks.resnet_v2 import ResNetV2
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content

PIXELS = Pixels((33.3,), (78.6,))
EXAMPLE = np.zeros((2, 1, 28, 28), np.uint8)


def untrained_network(outputs: int = 10) -> ResNetV2:
    return ResNetV2(outputs, widths=(8, 16), blocks=(1, 1), pixels=PIXELS, stem="halving")


def small_network(outputs: int = 10, seed: int = 0) -> ResNetV2:
    """Two groups of one block each, with weights and statistics that are not the initial ones."""
    torch.manual_seed(seed)
    network = untrained_network(outputs)
    with torch.no_grad():
        for _ in range(3):  # moves the running statistics of the normalisations
            network(torch.from_numpy(random_images(16, seed)))
    return network.eval()


@cache
def _small_network_file() -> bytes:
    return file_content(export_network(small_network(), EXAMPLE))


def exported_small_network() -> onnx.ModelProto:
    """`small_network` as ONNX; exported once for all tests, because that takes seconds."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(_small_network_file())
    return model


def random_images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)


def easy_subset(count: int, seed: int = 0) -> Subset:
    """Ten classes that can be told apart: a bright bar whose height is the class."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = random.integers(0, 60, (count, 1, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 4 + 2 * label : 6 + 2 * label, 6:22] = 255
    return Subset(images, labels)


def easy_dataset(training: int = 200) -> Dataset:
    return Dataset(easy_subset(training, 0), easy_subset(50, 1), easy_subset(100, 2))


def write_small_mnist(folder: Path, training: int = 250) -> None:
    """Writes `mnist.npz` with pictures of `easy_subset`."""
    train, test = easy_subset(training, 0), easy_subset(100, 1)
    np.savez_compressed(
        folder / "mnist.npz",
        xtr=train.images[:, 0],
        ytr=train.labels,
        xte=test.images[:, 0],
        yte=test.labels,
    )


@contextmanager
def published_small_mnist(folder: Path) -> Iterator[Path]:
    """Write `write_small_mnist`'s files into a new folder; the package expects these sizes meanwhile."""
    folder.mkdir()
    write_small_mnist(folder)
    small = replace(PUBLISHED["mnist"], training_file_images=250, test_images=100, held_out=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast("dict[str, Published]", PUBLISHED), "mnist", small)
        yield folder


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    shape: list[str | int | None],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A model from `x` to `y` of the same shape."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)
