"""Outputs become objects, maps, vectors, texts and tensors; hostile ones stay bounded."""

import io
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from splitplace.messages.answer_kinds import (
    AnswerKind,
    Classification,
    Detection,
    Embedding,
    MultiLabel,
    Segmentation,
    Sequence,
    Tensors,
)
from splitplace.messages.application import Application
from splitplace.messages.findings import (
    Finding,
    FoundLabels,
    FoundObjects,
    FoundRegions,
    FoundTensors,
    FoundText,
    FoundVector,
)
from splitplace.messages.frames import FrameError, SentTensor, TensorHeader
from splitplace.messages.limits import MAX_ANSWER_BYTES, MAX_FINDING_BYTES, MAX_FOUND
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.task import TaskResult
from splitplace.messages.tensors import TensorSpec
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.finding import findings
from splitplace.services.result_aggregator.keeping import Found, Unread, keep
from tests.support.kind_applications import kind_application
from tests.support.outputs import (
    logits_application,
    outputs_of,
    placed_as,
    random_logits,
    softmax,
)


def application(
    answer: AnswerKind, array: NDArray[Any], labels: tuple[str, ...] = ("cat", "dog")
) -> Application:
    spec = TensorSpec.model_validate({"dtype": array.dtype.name, "shape": array.shape[1:]})
    return kind_application(answer, spec, labels)


def found(answer: AnswerKind, array: NDArray[Any], labels: tuple[str, ...] = ("cat", "dog")) -> Finding:
    (finding,) = findings({"target": array}, application(answer, array, labels), 1)
    assert finding is not None
    return finding


def candidates(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array([rows], np.float32)


def test_objects_are_the_candidates_above_the_threshold_the_surest_first() -> None:
    array = candidates(
        (0, 0, 10, 10, 0.3, 0),
        (5, 5, 20, 25, 0.9, 1),
        (5, 5, 20, 24, -0.8, 1),  # suppressed
        (1, 1, 2, 2, 0.2, 0),  # not sure enough
        (9, 1, 2, 2, 0.9, 0),  # no box
        (1, 1, 2, 2, 0.9, 7),  # no class
    )
    objects = found(Detection(threshold=0.25), array)
    assert isinstance(objects, FoundObjects)
    assert [(each.label, each.index, each.box) for each in objects.objects] == [
        ("dog", 1, (5, 5, 20, 25)),
        ("cat", 0, (0, 0, 10, 10)),
    ]
    few = found(Detection(most=1), array)
    assert isinstance(few, FoundObjects)
    assert few.objects == objects.objects[:1]
    assert found(Detection(), candidates((0, 0, 1, 1, 0, 0))) == FoundObjects(objects=())


def test_a_threshold_of_zero_does_not_bring_suppressed_candidates_back() -> None:
    assert found(
        Detection(threshold=0), candidates((0, 0, 1, 1, -0.5, 0), (0, 0, 1, 1, 0, 0))
    ) == FoundObjects(objects=())


def test_regions_are_a_png_of_classes_and_their_shares() -> None:
    classes = np.zeros((1, 8, 16), np.uint8)
    classes[0, :, 12:] = 1
    regions = found(Segmentation(), classes)
    assert isinstance(regions, FoundRegions)
    assert [(each.label, each.share) for each in regions.regions] == [("cat", 0.75), ("dog", 0.25)]
    with Image.open(io.BytesIO(regions.png)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), classes[0])


def test_a_vector_keeps_the_precision_of_its_floats() -> None:
    values = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    vector = found(Embedding(), values)
    assert isinstance(vector, FoundVector)
    np.testing.assert_allclose(vector.values, values[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("symbols", "text"),
    [
        ([0, 1, 1, 0, 1, 2, 2, 0], "aab"),
        ([1, 1, 1], "a"),
        ([0, 0, 0], ""),
        ([2, 1, 2, 1], "baba"),
        ([1, 9, 1, -4], "aa"),  # what no symbol is
    ],
)
def test_repeated_symbols_and_blanks_are_left_out_of_a_text(symbols: list[int], text: str) -> None:
    steps = np.array([[[symbol, 0.5] for symbol in symbols]], np.float32)
    read = found(Sequence(blank=0), steps, ("-", "a", "b"))
    assert isinstance(read, FoundText)
    assert (read.text, read.confidence) == (text, 0.5 if text else 0.0)


def test_tensors_come_back_as_they_are() -> None:
    array = np.arange(6, dtype=np.int64).reshape(1, 2, 3)
    tensors = found(Tensors(), array)
    assert isinstance(tensors, FoundTensors)
    (tensor,) = tensors.tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("target", "int64", (2, 3))
    np.testing.assert_array_equal(np.frombuffer(tensor.data, np.int64).reshape(2, 3), array[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_input_whose_output_is_not_finite_has_no_finding(value: float) -> None:
    array = np.ones((2, 4), np.float32)
    array[1, 2] = value
    first, second = findings({"target": array}, application(Embedding(), array), 2)
    assert first is not None
    assert second is None


@pytest.mark.parametrize(
    "array", [np.zeros((1, 5), np.float32), np.zeros((1, 4), np.float64), np.zeros((4,), np.float32)]
)
def test_outputs_of_another_form_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(FrameError):
        findings({"target": array}, application(Embedding(), np.zeros((1, 4), np.float32)), 1)


def result(core: ResultAggregatorCore, known: Application, outputs: NDArray[Any]) -> TaskResult:
    """Return the result of a task whose micro-batches have two inputs each."""
    for number, start in enumerate(range(0, len(outputs), 2)):
        (header, _), *_ = outputs_of(np.zeros((1, 5), np.float32), "whole")
        part = outputs[start : start + 2]
        header = header.model_copy(
            update={
                "application": known.name,
                "micro_batch": number,
                "micro_batches": -(-len(outputs) // 2),
                "stage": "s",
                "trace": tuple(
                    report.model_copy(update={"stage": "s", "node": "node-s"}) for report in header.trace
                ),
            }
        )
        core.place(placed_as(header, known), 0.0)
        made = core.add(header, keep(header, [part], known), 0.0)
    assert made is not None
    return made


def several_outputs() -> tuple[Application, TensorHeader, list[NDArray[Any]]]:
    """Return an application of two outputs, and a frame of them in another order, for two inputs."""
    arrays = [np.array([[1, 2], [3, 4]], np.int32), np.array([0.5, 1.5], np.float32)]
    specs = [TensorSpec(dtype="int32", shape=(2,)), TensorSpec(dtype="float32", shape=())]
    outputs = [
        NamedTensor(name=name, spec=spec) for name, spec in zip(("state", "score"), specs, strict=True)
    ]
    known = application(Tensors(), arrays[0], ()).model_copy(update={"outputs": tuple(reversed(outputs))})
    (header, _), *_ = outputs_of(np.zeros((1, 5), np.float32), "whole")
    sent = [
        SentTensor(
            name=each.name, dtype=each.spec.dtype, shape=array.shape, codec="raw", encoded_bytes=array.nbytes
        )
        for each, array in zip(outputs, arrays, strict=True)
    ]
    first = {name: getattr(sent[0], name) for name in SentTensor.model_fields}
    return known, header.model_copy(update={**first, "more": (sent[1],)}), arrays


def test_several_outputs_of_a_frame_become_named_tensors() -> None:
    known, header, arrays = several_outputs()
    kept = keep(header, arrays, known)
    assert isinstance(kept, Found)
    for row, finding in enumerate(kept.findings):
        assert isinstance(finding, FoundTensors)
        assert {
            tensor.name: np.frombuffer(tensor.data, tensor.dtype).tolist() for tensor in finding.tensors
        } == {"state": arrays[0][row].tolist(), "score": [float(arrays[1][row])]}
    assert Unread(arrays).nbytes == sum(array.nbytes for array in arrays)


def test_a_frame_of_other_outputs_is_refused() -> None:
    known, header, arrays = several_outputs()
    one = header.model_copy(update={"more": ()})
    strange = header.model_copy(update={"name": "strange"})
    for frame, tensors in (
        (one, arrays[:1]),
        (strange, arrays),
        (header, [arrays[0], arrays[1][:1]]),
        (header, [arrays[0], arrays[1].astype(np.float64)]),
        (header, [np.array(1, np.int32), arrays[1]]),
    ):
        with pytest.raises(FrameError):
            keep(frame, tensors, known)
    with pytest.raises(FrameError, match="2 tensors"):
        keep(header, arrays, logits_application())


def test_findings_of_all_micro_batches_stand_in_the_order_of_the_inputs() -> None:
    array = np.arange(10, dtype=np.float32).reshape(5, 2)
    known = application(Embedding(), array, ())
    core = ResultAggregatorCore()
    core.add_application(known, 0.0)
    made = result(core, known, array)
    vectors = [finding.values for finding in made.findings if isinstance(finding, FoundVector)]
    assert vectors == [tuple(row) for row in array.tolist()]
    assert (made.coverage, made.finite, made.scores) == (1.0, 1.0, ())
    assert TaskResult.model_validate_json(made.model_dump_json()) == made


def test_outputs_that_come_before_their_manifest_wait() -> None:
    array = np.ones((2, 2), np.float32)
    known = application(Embedding(), array, ())
    core = ResultAggregatorCore()
    (header, _), *_ = outputs_of(np.zeros((1, 5), np.float32), "whole")
    trace = tuple(report.model_copy(update={"stage": "s", "node": "node-s"}) for report in header.trace)
    header = header.model_copy(update={"application": known.name, "stage": "s", "trace": trace})
    core.place(placed_as(header, known), 0.0)
    assert core.add(header, Unread([array]), 0.0) is None
    assert core.unread("another") is None
    waiting = core.unread(known.name)
    assert waiting is not None
    core.read(waiting[1], keep(waiting[0], waiting[1].arrays, known))
    assert core.unread(known.name) is None
    (made,) = core.add_application(known, 0.0)
    assert len(made.findings) == 2


def test_an_output_that_does_not_fit_its_manifest_waits_no_more() -> None:
    array = np.ones((2, 2), np.float32)
    known = application(Embedding(), array, ())
    core = ResultAggregatorCore()
    (header, _), *_ = outputs_of(np.zeros((1, 5), np.float32), "whole")
    header = header.model_copy(update={"application": known.name})
    assert core.add(header, Unread([array]), 0.0) is None
    waiting = core.unread(known.name)
    assert waiting is not None
    core.read(waiting[1], None)
    assert core.add_application(known, 0.0) == ()
    assert core.unread(known.name) is None


@pytest.mark.parametrize("variant", ["whole", "chain", "star", "tree"])
@pytest.mark.parametrize("answer", [Classification(top=3), MultiLabel(threshold=0.4)])
def test_several_classes_are_merged_of_all_branches(variant: str, answer: AnswerKind) -> None:
    scores = "sigmoid" if isinstance(answer, MultiLabel) else "softmax"
    known = logits_application().model_copy(update={"answer": answer, "scores": scores})
    logits = random_logits(6)
    core = ResultAggregatorCore()
    core.add_application(known, 0.0)
    made = None
    for header, columns in outputs_of(logits, variant):
        core.place(placed_as(header), 0.0)
        made = core.add(header, keep(header, [columns], known), 0.0)
    assert made is not None
    for row, finding in enumerate(made.inputs):
        if isinstance(answer, MultiLabel):
            assert isinstance(finding, FoundLabels)
            shares = 1 / (1 + np.exp(-logits[row].astype(float)))
            assert {each.index for each in finding.labels} == set(np.flatnonzero(shares >= 0.4).tolist())
            assert [each.confidence for each in finding.labels] == pytest.approx(
                sorted((share for share in shares if share >= 0.4), reverse=True), rel=1e-6
            )
        else:
            score = made.scores[row]
            assert score is not None
            shares = softmax(logits)[row]
            assert [each.index for each in score.top] == np.argsort(-shares)[:3].tolist()
            assert (score.index, score.confidence) == (score.top[0].index, score.top[0].confidence)
            assert [each.confidence for each in score.top] == pytest.approx(
                sorted(shares)[::-1][:3], rel=1e-5
            )


def test_branches_that_are_missing_take_their_share_of_the_probability() -> None:
    known = logits_application().model_copy(update={"answer": Classification(top=5)})
    core = ResultAggregatorCore()
    core.add_application(known, 0.0)
    (first, columns), *_ = outputs_of(random_logits(2), "star")
    core.place(placed_as(first), 0.0)
    assert core.add(first, keep(first, [columns], known), 0.0) is None
    made = core.settle(first.task)
    assert made is not None
    assert made.coverage == pytest.approx(3 / 5)
    for score in made.scores:
        assert score is not None
        assert sum(each.confidence for each in score.top) == pytest.approx(3 / 5, rel=1e-6)


def test_answers_of_branches_cannot_be_merged_to_objects() -> None:
    star = logits_application()
    with pytest.raises(ValidationError, match="is made of one output"):
        Application.model_validate(dict(star, answer=Detection()))


@pytest.mark.parametrize("kind", ["detection", "segmentation", "tensors", "embedding", "multi-label"])
def test_whatever_a_hostile_node_sends_the_work_and_the_answer_are_bounded(kind: str) -> None:
    random = np.random.default_rng(0)
    labels = tuple(f"class {index}" for index in range(80))
    if kind == "detection":  # every candidate is an object
        rows = np.tile(np.array([0, 0, 1e30, 1e30, 1, 79], np.float32), (16, 1000, 1))
        answer: AnswerKind = Detection(most=1000)
    elif kind == "segmentation":  # noise, which no PNG makes smaller
        rows, answer = random.integers(0, 256, (16, 640, 640), np.uint8), Segmentation()
    elif kind == "embedding":
        rows, answer = random.standard_normal((16, 1024)).astype(np.float32), Embedding()
    elif kind == "tensors":
        rows, answer = random.integers(0, 256, (16, 32 * 1024), np.uint8), Tensors()
    else:
        rows, answer = np.full((16, 80), 9, np.float32), MultiLabel(threshold=0)
    core = ResultAggregatorCore()
    if kind == "multi-label":
        known = kind_application(Tensors(), TensorSpec(dtype="float32", shape=(80,)), labels)
        stage = known.variants[0].stages[0].model_copy(update={"classes": tuple(range(80))})
        whole = known.variants[0].model_copy(update={"stages": (stage,)})
        known = Application.model_validate(
            dict(known, outputs=(), answer=answer, scores="sigmoid", variants=(whole,))
        )
    else:
        known = application(answer, rows, labels)
    core.add_application(known, 0.0)
    began = time.process_time()
    made = result(core, known, rows)
    assert time.process_time() - began < 10  # seconds: only work without bound takes longer
    assert len(made.model_dump_json()) < MAX_ANSWER_BYTES
    assert (
        sum(len(getattr(found, "objects", getattr(found, "labels", ()))) for found in made.findings)
        <= MAX_FOUND
    )
    assert sum(len(getattr(found, "png", b"")) for found in made.findings) <= MAX_FINDING_BYTES


def test_what_is_kept_counts_with_the_bytes_of_its_arrays() -> None:
    regions = FoundRegions(png=bytes(100_000), regions=())
    vector = FoundVector(values=(0.5,) * 1000)
    assert Found((regions,)).nbytes > 100_000
    assert Found((vector, None)).nbytes > Found((None, None)).nbytes + 8 * 1000
