"""Keep what an answer brings: tensors, the state for the next call, pictures with it drawn on them."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.commands.shared.drawing import DrawingError, drawn
from splitplace.commands.submit.request import ARRAYS, Arrays, Asked, SubmissionError, read_arrays
from splitplace.messages.findings import FoundTensors
from splitplace.messages.states import StateTensor
from splitplace.messages.task import Answer
from splitplace.storage.replace import replacing


def check_place(place: Path | None, flag: str) -> None:
    """Raise SubmissionError unless arrays can be kept there."""
    if place is not None and place.suffix.lower() != ARRAYS:
        raise SubmissionError(f"{flag} {place}: arrays are kept in a {ARRAYS} file")


def read_state(place: Path, states: Sequence[StateTensor]) -> dict[str, NDArray[Any]]:
    """Return the state that an answer before this one gave, by inputs; empty where there is no file yet.

    Raises:
        SubmissionError: It cannot be read, or holds no state of this application.
    """
    if not place.exists():
        return {}
    arrays = read_arrays(place)
    found = {state.input: arrays[state.input] for state in states if state.input in arrays}
    if not found:
        wanted = ", ".join(state.input for state in states)
        raise SubmissionError(f"--state {place}: it holds none of {wanted}; delete it to begin with zeros")
    return found


def save_pictures(answer: Answer, asked: Asked, place: Path) -> None:
    """Write pictures with their answers drawn on them: one as `place`, several into that folder.

    Raises:
        SubmissionError: There are no pictures, or they cannot be written.
    """
    if not asked.pictures:
        raise SubmissionError("--save draws on pictures; arrays have none")
    try:
        if len(asked.pictures) > 1:
            place.mkdir(parents=True, exist_ok=True)
        for file, content, prediction in zip(asked.pictures, asked.contents, answer.predictions, strict=True):
            drawing = place if len(asked.pictures) == 1 else place / f"{file.stem}.png"
            drawn(content, prediction).save(drawing)
    except (DrawingError, OSError, ValueError) as error:
        raise SubmissionError(f"--save {place}: {error}") from error


def tensors_of(answers: Sequence[Answer], flag: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of answers by name, batch first.

    Raises:
        SubmissionError: It is of another kind, or an input has none.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    for prediction in (each for answer in answers for each in answer.predictions):
        if prediction is None:
            raise SubmissionError(f"{flag}: an input has no answer (NaN or infinity)")
        if not isinstance(prediction, FoundTensors):
            raise SubmissionError(
                f"{flag}: these answers are no tensors but of the kind {prediction.kind}; --json prints them"
            )
        for tensor in prediction.tensors:
            array = np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)
            found.setdefault(tensor.name, []).append(array)
    return {name: np.stack(arrays) for name, arrays in found.items()}


def states_of(answer: Answer, states: Sequence[StateTensor]) -> dict[str, NDArray[Any]]:
    """Return the state for the next call by inputs, batch first. Raises SubmissionError."""
    tensors = tensors_of([answer], "--state")
    return {state.input: tensors[state.output] for state in states if state.output in tensors}


def save_arrays(arrays: Arrays, place: Path, flag: str) -> None:
    """Write arrays by name to a .npz file; `numpy.load` reads it. Raises SubmissionError."""
    try:
        with replacing(place) as file, zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():  # numpy.savez does not take any name
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    except OSError as error:
        raise SubmissionError(f"{flag} {place}: {error.strerror}") from error
