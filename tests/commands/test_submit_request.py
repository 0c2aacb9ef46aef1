"""Files and flags of `splitplace submit` become one task, and what its answer brings is kept."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitplace.commands.submit.request import Arrays, SubmissionError, read_arrays, request_from
from splitplace.commands.submit.saving import (
    read_state,
    save_arrays,
    save_pictures,
    states_of,
    tensors_of,
)
from splitplace.messages.findings import FoundTensor, FoundTensors
from splitplace.messages.states import StateTensor
from splitplace.messages.task import Answer
from tests.support.predictions import FOUND

STATES = (StateTensor(input="state", output="stateN"),)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4), (10, 20, 30)).save(name)
    Path("s.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    np.save("rows.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    np.savez("both.npz", state=np.ones((1, 2), np.float16), rate=np.array([8000]))
    np.savez("one.npz", anything=np.zeros((1, 2), np.float16))


def answer(*tensors: FoundTensor, inputs: int = 1) -> Answer:
    return Answer(
        task="t",
        client="c",
        application="app",
        status="answered",
        reason="",
        predictions=(FoundTensors(tensors=tensors),) * inputs,
    )


def found(name: str, *values: float) -> FoundTensor:
    return FoundTensor(name=name, dtype="float16", shape=(2,), data=np.array(values, np.float16).tobytes())


def test_named_pictures_are_a_batch_of_their_input_and_answers_are_drawn_on_the_first() -> None:
    named = ["left=a.png", "right=b.png", "left=b.png", "right=b.png"]
    asked = request_from((), 1000.0, named=named)
    left, right = asked.request.tensors or ()
    assert (left.name, right.name) == ("left", "right")
    assert left.images == (Path("a.png").read_bytes(), Path("b.png").read_bytes())
    assert asked.pictures == (Path("a.png"), Path("b.png"))
    assert asked.contents == left.images


def test_arrays_keep_type_and_shape_by_name_whatever_their_order_in_memory() -> None:
    np.save("big.npy", np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)))
    np.save("yes.npy", np.array([[True, False]]))
    asked = request_from([Path("big.npy")], 1000.0, named=["mask=yes.npy", "state=both.npz", "rest=one.npz"])
    assert asked.request.inputs == np.arange(6, dtype="<f4").tobytes()
    assert (asked.request.shape, asked.request.dtype) == ((2, 3), "float32")
    mask, state, rest = asked.request.tensors or ()
    assert (mask.dtype, mask.data) == ("uint8", b"\x01\x00")
    assert (state.dtype, state.shape) == ("float16", (1, 2))
    assert rest.data == bytes(4)


def test_an_archive_brings_all_its_arrays_by_name_and_what_is_named_takes_their_place() -> None:
    earlier: Arrays = {"state": np.full((1, 2), 7, np.float16), "rows": np.zeros(1, np.int8)}
    asked = request_from([Path("both.npz")], 1000.0, named=["rows=rows.npy"], state=earlier)
    tensors = {tensor.name: tensor for tensor in asked.request.tensors or ()}
    assert tensors.keys() == {"rows", "state", "rate"}
    assert tensors["rows"].shape == (2, 3)
    assert tensors["state"].data == np.ones((1, 2), np.float16).tobytes()


def _npy(head: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.ljust(117).encode() + b"\n"


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        (["left"], "expected NAME=FILE, like left=a.jpg"),
        (["=a.png"], "expected NAME=FILE"),
        (["left=none.png"], "none.png: No such file or directory"),
        (["left=a.png", "left=rows.npy"], "give pictures, arrays (.npy) or one .npz"),
        (["left=s.wav"], "a sound is the first input"),
        (["left=both.npz"], "both.npz has no array 'left'; it has state, rate"),
        (["left=wide.npy"], "--input left: arrays of float64 cannot be sent; save it as one of uint8"),
        (["left=object.npy"], "not a readable .npy array: it holds Python objects"),
        (["left=nested.npy"], "not a readable .npy array"),
        (["left=vast.npy"], "not a readable .npy array"),
        (["left=one-array.npz"], "it holds one array; name it .npy"),
        (["left=several.npy"], "it holds arrays by name; name it .npz"),
        (["left=text.npz"], "text.npz is not a readable .npz of arrays"),
        (["left=rows.npy", "left=more.npy"], "do not fit together"),
        ([f"{'a' * 600}=rows.npy"], "not a valid task: name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_makes_no_task_is_said_in_a_line(named: list[str], reason: str) -> None:
    np.save("wide.npy", np.zeros(2))
    np.save("object.npy", np.array([{}]), allow_pickle=True)
    np.save("more.npy", np.zeros((2, 4), np.float32))
    Path("text.npz").write_text("text")
    Path("nested.npy").write_bytes(_npy("(" * 100))
    Path("vast.npy").write_bytes(
        _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4398046511104,), }")
    )
    Path("one-array.npz").write_bytes(Path("more.npy").read_bytes())
    Path("several.npy").write_bytes(Path("both.npz").read_bytes())
    with pytest.raises(SubmissionError, match=re.escape(reason)):
        request_from((), 1000.0, named=named)


def test_tensors_of_an_answer_are_kept_by_any_name_and_sent_again_as_they_are() -> None:
    names = ["file", "/model/out:0", "ä ö"]
    made = answer(*(found(name, 1, 2) for name in names), inputs=2)
    save_arrays(tensors_of([made], "--save-tensors"), Path("kept.npz"), "--save-tensors")
    arrays = read_arrays(Path("kept.npz"))
    assert list(arrays) == names
    assert arrays["file"].tolist() == [[1, 2], [1, 2]]
    again = request_from([Path("kept.npz")], 1000.0).request.tensors or ()
    assert [(tensor.name, tensor.shape) for tensor in again] == [(name, (2, 2)) for name in names]


def test_the_state_of_an_answer_is_the_input_of_the_next_call() -> None:
    place = Path("state.npz")
    assert read_state(place, STATES) == {}
    save_arrays(states_of(answer(found("y", 0, 0), found("stateN", 3, 4)), STATES), place, "--state")
    earlier = read_state(place, STATES)
    (tensor,) = request_from((), 1000.0, state=earlier).request.tensors or ()
    assert (tensor.name, tensor.shape, tensor.data) == ("state", (1, 2), np.array([3, 4], "<f2").tobytes())
    with pytest.raises(SubmissionError, match="holds none of state; delete it"):
        read_state(Path("one.npz"), STATES)


def test_what_brings_no_tensors_or_pictures_says_so() -> None:
    other = answer().model_copy(update={"predictions": FOUND[:1]})
    with pytest.raises(SubmissionError, match="of the kind classification; --json prints them"):
        tensors_of([other], "--save-tensors")
    with pytest.raises(SubmissionError, match="NaN or infinity"):
        tensors_of([answer().model_copy(update={"predictions": (None,)})], "--save-tensors")
    with pytest.raises(SubmissionError, match="arrays have none"):
        save_pictures(answer(), request_from([Path("rows.npy")], 1000.0), Path("out.png"))
