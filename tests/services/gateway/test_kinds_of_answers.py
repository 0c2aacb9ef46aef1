"""Answers of other kinds than classes: on the sender's picture, in the journal, within bounds."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitplace.bus.connection import RawReceived, RequestProperties
from splitplace.messages.answer_kinds import Detection, Embedding
from splitplace.messages.findings import FoundObject, FoundObjects, FoundVector
from splitplace.messages.pictures import PictureInput, View
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import ClassScore, TaskRequest, TaskResult
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway import answers, intake
from splitplace.services.gateway.fitting import misfit
from splitplace.services.gateway.instructions import Finish
from splitplace.services.gateway.journal import Entry, Journal, ReplyTo
from splitplace.services.gateway.partial import surviving_coverage
from splitplace.services.gateway.refusals import TaskRefusedError
from splitplace.services.gateway.task import NewTask, Task
from tests.services.gateway.stimuli import placed
from tests.support.kind_applications import PICTURE, kind_application
from tests.support.pictures import marked

CANDIDATES = TensorSpec(dtype="float32", shape=(100, 6))
DETECTOR = kind_application(Detection(), CANDIDATES)
VIEW = View.of((640, 480), (96, 64), PictureInput(fit="pad"))


def result_of(*findings: FoundObjects | FoundVector | None) -> TaskResult:
    return TaskResult(
        task="c.1.00000000",
        attempt=1,
        application="kinds",
        variant="whole",
        findings=findings,
        stages=(),
        micro_batches=1,
        moved_bytes=0,
    )


def entry(*views: View, batch: int = 1) -> Entry:
    return Entry(
        *("c.1.00000000", "c", "1", "kinds", 500.0, 0.0, 1),
        inputs=np.zeros((batch, *PICTURE.shape), np.uint8),
        labels=None,
        reply=ReplyTo(),
        views=views,
    )


def finish(result: TaskResult) -> Finish:
    return Finish(
        *("c.1.00000000", 1, "kinds", 1, 500.0, "answered", "", 10.0), result=result, decided=None, nodes=()
    )


def objects(*box: float) -> FoundObjects:
    left, top, right, bottom = box
    return FoundObjects(
        objects=(FoundObject(label="cat", index=0, confidence=0.5, box=(left, top, right, bottom)),)
    )


def test_boxes_of_a_picture_are_in_its_own_pixels_and_those_of_an_array_in_the_input_s() -> None:
    found = result_of(objects(5, 0, 90, 64))
    (on_picture,) = answers.answer(finish(found), entry(VIEW), DETECTOR).predictions
    assert isinstance(on_picture, FoundObjects)
    assert on_picture.objects[0].box == pytest.approx((0, 0, 640, 480), abs=8)
    (on_input,) = answers.answer(finish(found), entry(), DETECTOR).predictions
    assert on_input == found.findings[0]


def test_an_input_without_finding_is_named_and_accuracy_is_not_measured() -> None:
    half = result_of(objects(0, 0, 9, 9), None).model_copy(update={"finite": 0.5})
    made = finish(half)
    answer = answers.answer(made, entry(batch=2), DETECTOR)
    assert answer.predictions[1] is None
    assert "inputs 1 " in answer.warnings[0]
    assert answers.accuracy(made.result, (0, 1)) is None
    assert answers.finished(made, DETECTOR).status == "answered"


async def test_the_journal_remembers_how_pictures_were_seen(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.sqlite", durable=False) as journal:
        await journal.accept(entry(VIEW))
        (read,), damaged = await journal.unfinished()
    assert (read.views, damaged) == ((VIEW,), ())


def test_views_are_kept_only_where_answers_name_places() -> None:
    raw = RawReceived({"application": "kinds"}, marked(640, 480, (0, 0, 9, 9)), RequestProperties())
    submission = intake.read(raw, intake.identify(raw))
    (view,) = intake.decode(submission, DETECTOR).views
    assert (view.width, view.height) == (640, 480)
    vectors = kind_application(Embedding(), TensorSpec(dtype="float32", shape=(4,)))
    assert intake.decode(submission, vectors).views == ()


def test_a_task_has_no_more_inputs_than_an_answer_has_room_for() -> None:
    vectors = kind_application(Embedding(), TensorSpec(dtype="float32", shape=(8192,)))
    file = io.BytesIO()
    Image.new("RGB", (96, 64)).save(file, "PNG")
    request = TaskRequest(images=(file.getvalue(),) * 3)
    raw = RawReceived({"application": "kinds"}, b"", RequestProperties())
    submission = intake.Submission(intake.identify(raw), "kinds", request, None, "")
    with pytest.raises(TaskRefusedError, match="room for 2"):
        intake.decode(submission, vectors)


def test_a_result_of_another_kind_is_no_result() -> None:
    running = Task(NewTask("c.1.00000000", "kinds", 1, 32, 500.0, accepted_at_ms=0.0), 2)
    assert misfit(result_of(objects(0, 0, 1, 1), None), running, DETECTOR) is None
    for other in (
        result_of(FoundVector(values=(1.0,))),
        result_of(None).model_copy(update={"findings": (), "scores": (ClassScore(index=0, confidence=0.5),)}),
    ):
        assert misfit(other, running, DETECTOR) == "it is no result of detection"


def test_an_answer_that_is_not_made_of_classes_is_lost_with_any_of_its_nodes() -> None:
    where = placed().model_copy(
        update={"stages": (StagePlacement(stage="s", node="n1", work_ms=1.0),), "application": "kinds"}
    )
    assert surviving_coverage(DETECTOR.variant("whole"), where, set()) == 1.0
    assert surviving_coverage(DETECTOR.variant("whole"), where, {"n1"}) == 0.0
