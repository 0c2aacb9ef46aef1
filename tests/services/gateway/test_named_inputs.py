"""Tasks of several named tensors: read, checked, kept as rows of bytes, and sent on under their names."""

import base64
import json
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.messages.application import Application
from splitplace.messages.frames import TensorHeader, decode_bundle, unpack
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.placing import StagePlacement
from splitplace.messages.states import StateTensor
from splitplace.messages.task import TaskPlaced, TaskTensor
from splitplace.messages.tensors import TensorSpec
from splitplace.services.gateway.arrays import arrays_of, rows_of
from splitplace.services.gateway.dispatch import input_frames
from splitplace.services.gateway.intake import ValidTask, decode, identify, read
from splitplace.services.gateway.refusals import TaskRefusedError
from tests.support.bundle_applications import app_of
from tests.support.outputs import logits_application

SOUND = NamedTensor(name="sound", spec=TensorSpec(dtype="float32", shape=(5,)))
STATE = NamedTensor(name="state", spec=TensorSpec(dtype="float16", shape=(2, 3)))
RATE = NamedTensor(name="rate", spec=TensorSpec(dtype="int64", shape=()))
SPEECH = NamedTensor(name="speech", spec=TensorSpec(dtype="float32", shape=(1,)))
NEXT = NamedTensor(name="next", spec=STATE.spec)
APP: Application = app_of(
    (SOUND, STATE, RATE),
    (SPEECH, NEXT),
    outputs=(SPEECH, NEXT),
    states=(StateTensor(input="state", output="next"),),
    labels=(),
)
Arrays = dict[str, NDArray[Any]]


def arrays(images: int = 2) -> Arrays:
    return {
        "sound": np.arange(images * 5, dtype=np.float32).reshape(images, 5) / 7,
        "state": np.arange(images * 6, dtype=np.float16).reshape(images, 2, 3),
        "rate": np.full(images, 16_000, np.int64),
    }


def sent(name: str, array: NDArray[Any], **changes: Any) -> dict[str, Any]:
    fields = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "data": array.tobytes()}
    return fields | changes


def task(body: dict[str, Any], app: Application = APP, *, packed: bool = True) -> ValidTask:
    def in_base64(value: object) -> str:
        assert isinstance(value, bytes)
        return base64.b64encode(value).decode()

    payload = msgpack.packb(body) if packed else json.dumps(body, default=in_base64).encode()
    raw = RawReceived(
        {"application": app.name, "client": "camera", "task": "1"}, payload, RequestProperties()
    )
    return decode(read(raw, identify(raw)), app)


def same(found: Any, expected: Arrays) -> None:
    assert list(found) == ["sound", "state", "rate"]
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("as_map", [True, False])
def test_named_inputs_come_in_any_order_as_list_or_map(*, packed: bool, as_map: bool) -> None:
    listed = [sent(name, array) for name, array in reversed(arrays().items())]
    tensors = {each.pop("name"): each for each in listed} if as_map else listed
    valid = task({"tensors": tensors}, packed=packed)
    assert (valid.inputs.dtype.name, valid.inputs.shape) == ("uint8", (2, 20 + 12 + 8))
    same(arrays_of(APP, valid.inputs), arrays())


def test_a_state_is_zeros_at_first_and_comes_back_under_the_name_of_the_output_that_made_it() -> None:
    given_ = arrays(1)
    listed = [sent(name, given_[name]) for name in ("sound", "rate")]
    first = arrays_of(APP, task({"tensors": listed}).inputs)
    assert not first["state"].any()
    answer = sent("next", given_["state"][0])  # as an answer has it, without the batch
    again = arrays_of(APP, task({"tensors": [*listed, answer]}).inputs)
    same(again, given_)


def test_the_first_input_may_come_without_its_name() -> None:
    given_ = arrays()
    body = {"inputs": given_["sound"].tobytes(), "tensors": [sent("rate", given_["rate"])]}
    found = arrays_of(APP, task(body).inputs)
    assert np.array_equal(found["sound"], given_["sound"])


def test_one_input_may_come_without_a_batch() -> None:
    one = arrays(1)
    bare = [sent(name, array[0]) for name, array in one.items()]
    same(arrays_of(APP, task({"tensors": bare}).inputs), one)
    first = {"inputs": one["sound"].tobytes(), "dtype": "float32", "shape": [5], "tensors": bare[1:]}
    same(arrays_of(APP, task(first).inputs), one)


def test_shape_and_type_may_be_left_out() -> None:
    listed = [{"name": name, "data": array.tobytes()} for name, array in arrays().items()]
    same(arrays_of(APP, task({"tensors": listed}).inputs), arrays())


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([sent("sound", arrays()["sound"])], "inputs rate are missing"),
        ([sent("noise", arrays()["sound"])], "no input 'noise'; there is: sound, state, rate"),
        ([sent("sound", arrays()["sound"])] * 2, "given twice"),
        ([sent("state", arrays()["state"]), sent("next", arrays()["state"])], "given twice"),
        ([sent("sound", arrays()["sound"].astype(np.float16))], "'sound': dtype float16"),
        ([sent("sound", arrays()["sound"][:, :4])], "'sound': shape"),
        ([sent("sound", arrays()["sound"], data=b"123")], "'sound' hold 3 bytes"),
        ([sent("sound", np.full((2, 5), np.nan, np.float32))], "NaN"),
        ([sent("sound", arrays(3)["sound"]), sent("rate", arrays()["rate"])], "different numbers"),
        ([], "give one of `inputs`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_inputs_that_do_not_fit_are_refused_by_name(tensors: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(TaskRefusedError, match=reason):
        task({"tensors": tensors})


def test_an_application_of_one_input_takes_it_by_name_too() -> None:
    app = logits_application()
    array = np.arange(16, dtype=np.uint8).reshape(2, *app.input.shape)
    assert np.array_equal(task({"tensors": [sent("input", array)]}, app).inputs, array)
    with pytest.raises(TaskRefusedError, match="no input 'image'"):
        task({"tensors": [sent("image", array)]}, app)


def test_other_inputs_are_another_task() -> None:
    contents = {
        task({"tensors": [sent("sound", arrays()["sound"]), sent("rate", rate)]}).content
        for rate in (np.full(2, 8000), np.full(2, 16_000))
    }
    assert len(contents) == 2


@given(images=st.integers(1, 9), data=st.data())
def test_any_run_of_rows_is_these_images_of_all_inputs(images: int, data: st.DataObject) -> None:
    given_ = arrays(images)
    tensors = [TaskTensor(name=name, data=array.tobytes()) for name, array in given_.items()]
    rows = rows_of(APP, tensors, {})
    start = data.draw(st.integers(0, images - 1))
    end = data.draw(st.integers(start + 1, images))
    same(arrays_of(APP, rows[start:end]), {name: array[start:end] for name, array in given_.items()})


def test_each_micro_batch_carries_all_inputs_under_their_names() -> None:
    given_ = arrays(3)
    rows = rows_of(APP, [TaskTensor(name=n, data=a.tobytes()) for n, a in given_.items()], {})
    placed = TaskPlaced(
        task="c.t",
        attempt=1,
        application=APP.name,
        variant="layer",
        batch=3,
        micro_batch=2,
        policy="test",
        stages=(StagePlacement(stage="s0", node="n", work_ms=1.0),),
        predicted_ms=None,
        reason="",
    )
    frames = [
        unpack(TensorHeader, frame) for _, frame in input_frames(APP, placed, rows, 1000.0, compress=False)
    ]
    for (header, body), start in zip(frames, (0, 2), strict=True):
        found = decode_bundle(header, body)
        named = {str(tensor.name): array for tensor, array in zip(header.tensors, found, strict=True)}
        same(named, {name: array[start : start + 2] for name, array in given_.items()})
