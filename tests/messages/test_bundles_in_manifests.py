"""Manifests name the tensors where there are several: of a task, of an answer, and between stages."""

from typing import Any

import pytest
from pydantic import ValidationError

from splitplace.messages.application import Application
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.states import StateTensor
from splitplace.messages.tensors import TensorSpec
from tests.support.bundle_applications import app_of
from tests.support.message_examples import LOGITS

PICTURE = NamedTensor(name="picture", spec=TensorSpec(dtype="uint8", shape=(3, 8, 8)))
STATE = NamedTensor(name="state", spec=TensorSpec(dtype="float32", shape=(16,)))
DEEP = NamedTensor(name="deep", spec=TensorSpec(dtype="float32", shape=(8,)))
SKIPPED = NamedTensor(name="skipped", spec=TensorSpec(dtype="float16", shape=(2, 2)))
SCORES = NamedTensor(name="scores", spec=LOGITS)
NEXT = NamedTensor(name="next", spec=STATE.spec)


def test_several_tensors_may_cross_from_stage_to_stage() -> None:
    app = app_of((PICTURE,), (DEEP, SKIPPED), (SCORES,))
    first, last = app.fragments
    assert (first.output, first.outputs) == (DEEP.spec, (DEEP, SKIPPED))
    assert (last.input, last.inputs, last.outputs) == (DEEP.spec, (DEEP, SKIPPED), ())
    assert first.output_bytes_per_image == last.input_bytes_per_image == 8 * 4 + 4 * 2
    assert (first.input_bytes_per_image, last.output_bytes_per_image) == (192, 16)
    assert Application.model_validate_json(app.model_dump_json()) == app


def test_a_task_may_bring_several_tensors_and_an_answer_give_several() -> None:
    state = StateTensor(input="state", output="next")
    app = app_of((PICTURE, STATE), (SCORES, NEXT), outputs=(SCORES, NEXT), states=(state,), labels=())
    assert app.input_bytes_per_image == 192 + 64
    assert Application.model_validate_json(app.model_dump_json()) == app


def test_one_named_output_needs_no_labels() -> None:
    assert app_of((PICTURE,), (DEEP,), outputs=(DEEP,), labels=()).outputs == (DEEP,)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"inputs": ()}, "reads"),
        ({"inputs": (PICTURE, NEXT)}, "reads"),
        ({"inputs": (STATE, PICTURE)}, "reads"),
        ({"inputs": (PICTURE, PICTURE)}, "reads"),
        ({"outputs": (SCORES,)}, "instead of the outputs"),
        ({"outputs": (NEXT, SCORES)}, "instead of the outputs"),
        ({"outputs": (SCORES, SCORES)}, "instead of the outputs"),
        ({"states": (StateTensor(input="state", output="scores"),)}, "state"),
        ({"states": (StateTensor(input="nothing", output="next"),)}, "nothing"),
        ({"states": (StateTensor(input="state", output="nothing"),)}, "state"),
    ],
    ids=str,
)
def test_inputs_and_outputs_that_the_stages_do_not_have_are_refused(
    changes: dict[str, Any], problem: str
) -> None:
    fields: dict[str, Any] = {"outputs": (SCORES, NEXT), "labels": ()}
    with pytest.raises(ValidationError, match=problem):
        app_of((PICTURE, STATE), (SCORES, NEXT), **(fields | changes))


def test_several_outputs_are_no_logits() -> None:
    with pytest.raises(ValidationError, match="for 4 classes"):
        app_of((PICTURE,), (SCORES, NEXT))


def test_without_outputs_there_are_labels_to_choose_from() -> None:
    only = NamedTensor(name="only", spec=TensorSpec(dtype="float32", shape=(1,)))
    with pytest.raises(ValidationError, match="1 labels"):
        app_of((PICTURE,), (only,), labels=("one",), classes=(0,))


def test_a_fragment_that_hides_a_tensor_is_refused() -> None:
    app = app_of((PICTURE,), (DEEP, SKIPPED), (SCORES,))
    hidden = tuple(each.model_copy(update={"inputs": (), "outputs": ()}) for each in app.fragments)
    with pytest.raises(ValidationError, match="other inputs or outputs"):
        Application.model_validate(dict(app, fragments=hidden))
