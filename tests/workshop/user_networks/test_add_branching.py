"""A network in which several tensors cross everywhere is added, and its chains answer as the whole."""

from pathlib import Path

from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.packing.evaluation import EQUAL_LOGITS
from splitplace.workshop.user_networks.add import AddRequest, add
from splitplace.workshop.user_networks.from_onnx import Adopted
from tests.support.branching_networks import SIDE, unet_classifier


def test_a_network_of_skipped_connections_is_added_in_four_stages(tmp_path: Path) -> None:
    network = Adopted(unet_classifier(), TensorSpec(dtype="float32", shape=(3, SIDE, SIDE)))
    request = AddRequest("unet", "U-Net", ("a", "b", "c", "d"), stages=(4,), micro_batch=2)
    application, results = add(network, request, ModelStore(tmp_path), 0.5)
    layer = application.variant("layer")
    runs = [application.fragment(stage.fragment) for stage in layer.stages]
    assert len(runs) == 4
    assert any(run.outputs for run in runs[:-1]), "several tensors cross"
    assert max(run.weight_bytes for run in runs) <= 0.4 * sum(run.weight_bytes for run in runs)
    assert all(result.difference_from_whole <= EQUAL_LOGITS for result in results)
    assert ModelStore(tmp_path).application("unet") == application
