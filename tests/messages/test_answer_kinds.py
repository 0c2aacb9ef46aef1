"""What applications declare of their answers, and what answers look like on the wire."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from splitplace.messages.answer_kinds import KINDS, AnswerKind, form_problem, most_inputs
from splitplace.messages.findings import Prediction
from splitplace.messages.limits import MAX_BATCH
from splitplace.messages.task import Answer
from splitplace.messages.tensors import TensorSpec
from tests.support.predictions import FOUND

KIND: TypeAdapter[AnswerKind] = TypeAdapter(AnswerKind)
FORMS: dict[str, TensorSpec] = {
    "detection": TensorSpec(dtype="float32", shape=(300, 6)),
    "segmentation": TensorSpec(dtype="uint8", shape=(64, 64)),
    "embedding": TensorSpec(dtype="float32", shape=(128,)),
    "sequence": TensorSpec(dtype="float32", shape=(40, 2)),
    "tensors": TensorSpec(dtype="int64", shape=(3,)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_made_of_outputs_of_one_form(kind: str) -> None:
    answer = KIND.validate_python({"kind": kind})
    fitting = {"y": FORMS[kind]} if kind in FORMS else {}
    assert form_problem(answer, fitting, 3) == ""
    assert most_inputs(answer, fitting) > 1
    for other, spec in FORMS.items():
        if kind not in (other, "tensors"):
            assert form_problem(answer, {"y": spec}, 3)
    if fitting:
        assert form_problem(answer, {}, 3)
        assert form_problem(answer, {"a": FORMS[kind], "b": FORMS[kind]}, 3) == "" or kind != "tensors"


def test_tasks_have_no_more_inputs_than_their_answers_have_room_for() -> None:
    def most(kind: str, *shape: int, dtype: str = "float32") -> int:
        spec = TensorSpec.model_validate({"dtype": dtype, "shape": shape})
        return most_inputs(KIND.validate_python({"kind": kind}), {"y": spec})

    assert most("embedding", 2048) == 8
    assert most("tensors", 64 * 1024) == 2
    assert most("tensors", 1 << 20) == 0
    assert most("detection", 300, 6) == MAX_BATCH


def test_a_sequence_needs_its_symbols_and_its_blank_among_them() -> None:
    spec = {"y": FORMS["sequence"]}
    assert "needs labels" in form_problem(
        KIND.validate_python({"kind": "detection"}), {"y": FORMS["detection"]}, 0
    )
    assert "none of 3 symbols" in form_problem(
        KIND.validate_python({"kind": "sequence", "blank": 3}), spec, 3
    )


def _answer(**changes: Any) -> Answer:
    fields = {"task": "1", "client": "c", "application": "a", "status": "answered", "reason": ""}
    return Answer.model_validate({**fields, **changes})


def test_answers_of_all_kinds_survive_json_and_msgpack() -> None:
    answer = _answer(predictions=(*FOUND, None))
    assert Answer.model_validate_json(answer.model_dump_json()) == answer
    assert Answer.model_validate(answer.model_dump()) == answer
    assert [found and found["kind"] for found in answer.model_dump()["predictions"]] == [*KINDS, None]


def test_the_answer_of_an_earlier_version_is_a_classification() -> None:
    (found,) = _answer(predictions=({"label": "cat", "index": 1, "confidence": 0.5},)).predictions
    assert found == Prediction(label="cat", index=1, confidence=0.5)
    with pytest.raises(ValidationError):
        _answer(predictions=({"kind": "divination"},))
