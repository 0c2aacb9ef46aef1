"""What detectors give becomes candidates; suppression is that of a plain loop."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from splitplace.edge_node.graph_check import check_bytes
from splitplace.workshop.user_networks.detectors import DetectorWishes, append_detector
from splitplace.workshop.user_networks.reading import UserNetworkError

SIZE = (320, 240)
CLASSES = 3


def candidates(
    wishes: DetectorWishes, opset: int = 17, **arrays: NDArray[np.float32]
) -> tuple[NDArray[np.float32], str]:
    """Return the candidates of outputs, and the notes."""
    inputs = [
        helper.make_tensor_value_info(f"in_{name}", TensorProto.FLOAT, ["N", *array.shape[1:]])
        for name, array in arrays.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in arrays]
    nodes = [helper.make_node("Identity", [f"in_{name}"], [name]) for name in arrays]
    model = helper.make_model(
        helper.make_graph(nodes, "test", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    made, kept, notes = append_detector(model, arrays, SIZE, wishes)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(made, TensorProto.FLOAT, ["N", kept, 6]))
    onnx.checker.check_model(model, full_check=True)
    check_bytes(model.SerializeToString(), 1 << 28)  # a node runs it
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {f"in_{name}": array for name, array in arrays.items()})
    return np.asarray(found), notes[0]


def random_boxes(count: int, images: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """Corners in pixels, crowded so that many overlap."""
    random = np.random.default_rng(seed)
    middle = random.uniform((60, 60), (200, 160), (images, count, 2))
    half = random.uniform(15, 40, (images, count, 2))
    return np.concatenate([middle - half, middle + half], axis=2).astype(np.float32)


def centres(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    first, second = corners[..., :2], corners[..., 2:]
    return np.concatenate([(first + second) / 2, second - first], axis=2)


def scores(count: int, classes: int = CLASSES, images: int = 2, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 1, (images, count, classes)).astype(np.float32)


def expected(boxes: NDArray[Any], shares: NDArray[Any], overlap: float = 0.45) -> list[tuple[float, ...]]:
    """Suppress the boxes of one picture in a plain loop."""
    order = np.argsort(-shares.max(axis=1))[:300]
    kept: list[int] = []
    for index in order:
        same = [other for other in kept if shares[other].argmax() == shares[index].argmax()]
        if all(_overlap(boxes[index], boxes[other]) <= overlap for other in same):
            kept.append(index)
    return [(*boxes[index], shares[index].max(), shares[index].argmax()) for index in kept]


def _overlap(one: NDArray[Any], other: NDArray[Any]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return common / (areas - common)


def assert_equal(
    found: NDArray[Any], boxes: NDArray[Any], shares: NDArray[Any], overlap: float = 0.45
) -> None:
    for image in range(len(boxes)):
        kept = found[image][found[image][:, 4] > 0]
        right = np.array(expected(boxes[image], shares[image], overlap))
        assert 1 < len(kept) < found.shape[1]
        np.testing.assert_allclose(kept, right, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("unit", ["pixels", "share"])
def test_a_yolo_of_box_and_classes_is_recognised(opset: int, transposed: bool, unit: str) -> None:  # noqa: FBT001
    boxes, shares = random_boxes(50), scores(50)
    scale = 1.0 if unit == "pixels" else np.array([*SIZE, *SIZE], np.float32)
    raw = np.concatenate([centres(boxes) / scale, shares], axis=2).astype(np.float32)
    raw = np.ascontiguousarray(raw.transpose(0, 2, 1)) if transposed else raw
    found, note = candidates(DetectorWishes(CLASSES), opset, y=raw)
    assert_equal(found, boxes, shares)
    assert f"detector yolo (recognised by the shapes of its outputs), boxes as centre-{unit}" in note


def test_objectness_counts_and_logits_become_probabilities() -> None:
    boxes, shares, objects = random_boxes(40), scores(40), scores(40, 1, seed=3)
    raw = np.concatenate([centres(boxes), objects, shares], axis=2)
    found, note = candidates(DetectorWishes(CLASSES), y=raw)
    assert "yolo-objectness" in note
    assert_equal(found, boxes, shares * objects)
    logits = np.log(shares / (1 - shares)) * 3
    raw = np.concatenate([centres(boxes), logits], axis=2).astype(np.float32)
    found, note = candidates(DetectorWishes(CLASSES, overlap=0.3), y=raw)
    assert "sigmoid of its scores" in note
    assert_equal(found, boxes, 1 / (1 + np.exp(-logits)), 0.3)


def test_two_outputs_are_scores_and_boxes_with_a_background_that_the_user_says() -> None:
    boxes, logits = random_boxes(60), scores(60, CLASSES + 1) * 4
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    share_boxes = (boxes / np.array([*SIZE, *SIZE])).astype(np.float32)
    with pytest.raises(UserNetworkError, match="may be ssd, detr: say --head"):
        candidates(DetectorWishes(CLASSES), boxes=share_boxes, scores=logits)
    found, _ = candidates(DetectorWishes(CLASSES, head="ssd"), boxes=share_boxes, scores=logits)
    assert_equal(found, boxes, shares[..., 1:])
    found, note = candidates(DetectorWishes(CLASSES, head="detr"), scores=logits, boxes=centres(share_boxes))
    assert "centre-share" in note
    order = np.argsort(-shares[0, :, :-1].max(axis=1))
    np.testing.assert_allclose(found[0, :, :4], boxes[0][order], rtol=1e-4, atol=1e-2)  # none suppressed
    assert (found[..., 4] > 0).all()


def test_candidates_that_are_suppressed_already_stay_as_they_are() -> None:
    boxes = random_boxes(30)
    raw = np.concatenate([boxes, scores(30, 1), np.full((2, 30, 1), 2, np.float32)], axis=2)
    found, note = candidates(DetectorWishes(80), y=raw)
    assert "candidates" in note
    order = np.argsort(-raw[0, :, 4])
    np.testing.assert_allclose(found[0], raw[0][order], rtol=1e-5)


def test_of_many_candidates_the_surest_are_handed_on() -> None:
    boxes, shares = random_boxes(1000), scores(1000)
    found, note = candidates(DetectorWishes(CLASSES), y=np.concatenate([centres(boxes), shares], axis=2))
    assert found.shape == (2, 300, 6)
    assert "300 of 1000 candidates" in note
    assert_equal(found, boxes, shares)


@pytest.mark.parametrize(
    ("wishes", "shape", "problem"),
    [
        (DetectorWishes(5), (50, 7), "say --head"),
        (DetectorWishes(CLASSES), (50,), "a detector gives"),
        (DetectorWishes(1, head="ssd"), (50, 5), "none that is known"),
    ],
)
def test_what_cannot_be_told_is_asked_for(
    wishes: DetectorWishes, shape: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(UserNetworkError, match=problem):
        candidates(wishes, y=np.ones((2, *shape), np.float32))


def test_boxes_that_are_neither_shares_nor_pixels_must_be_decoded_first() -> None:
    raw = np.concatenate([np.full((2, 50, 4), 7, np.float32), scores(50)], axis=2)
    with pytest.raises(UserNetworkError, match="decoded first"):
        candidates(DetectorWishes(CLASSES), y=raw)
