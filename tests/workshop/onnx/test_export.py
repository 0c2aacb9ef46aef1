"""What is exported computes the same as torch and tells nothing of the machine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitplace.edge_node.runtime import load_fragment
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from tests.support.small_networks import EXAMPLE, random_images, small_network


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_file_answers_as_torch_does_at_any_batch_size(tmp_path: Path, count: int) -> None:
    network = small_network()
    path = tmp_path / "network.onnx"
    path.write_bytes(file_content(export_network(network, EXAMPLE)))
    runtime = load_fragment(path)
    assert runtime.input == TensorSpec(dtype="uint8", shape=(1, 28, 28))
    assert runtime.output == TensorSpec(dtype="float32", shape=(10,))
    images = random_images(count)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(runtime.run(images), expected, atol=1e-4)


def test_the_same_network_gives_the_same_bytes_without_paths_of_the_machine() -> None:
    first, second = (file_content(export_network(small_network(), EXAMPLE)) for _ in range(2))
    assert first == second
    assert str(Path(__file__).parents[2]).encode() not in first
    assert b".py" not in first


class CountsWithLen(nn.Module):
    """Flattens as many do, in a way that an export takes for a constant."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().reshape(len(images), -1)


def test_a_network_whose_code_fixes_the_size_of_the_batch_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(ValueError, match=r"batches of 2 images only.*write x\.size\(0\)"):
        export_network(CountsWithLen(), EXAMPLE)
