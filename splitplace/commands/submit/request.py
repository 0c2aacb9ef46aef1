"""Make one task of files: pictures, arrays, a sound; with or without the names of their inputs."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from splitplace.commands.shared.options import explain
from splitplace.errors import ConfigurationError
from splitplace.messages.limits import MAX_TASK_BYTES
from splitplace.messages.task import TaskRequest, TaskTensor
from splitplace.messages.tensors import ITEM_BYTES

SOUND = ".wav"
ARRAY = ".npy"
ARRAYS = ".npz"
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by the names of their tensors."""


class SubmissionError(ConfigurationError):
    """The files and flags do not make a task."""


@dataclass(frozen=True)
class Asked:
    """A task, and the files that its answers are drawn on."""

    request: TaskRequest
    pictures: tuple[Path, ...] = ()
    """The first pictures that were given, one for each input of the batch."""
    contents: tuple[bytes, ...] = ()
    """What stands in them."""


def request_from(
    files: Sequence[Path],
    deadline_ms: float,
    labels: Sequence[int] | None = None,
    named: Sequence[str] = (),
    state: Arrays | None = None,
) -> Asked:
    """Return one task made from files.

    Args:
        files: for the first input: pictures, one for each input of the batch; or .npy arrays, each a batch
            `[N, ...]`, all of one dtype; or one WAV file. Or one .npz file of arrays by name.
        deadline_ms: from the arrival at the gateway.
        labels: the true class of every input, where known.
        named: files for inputs by name, as NAME=FILE; again for further inputs of the batch.
        state: arrays that an answer before this one gave; what is named takes their place.

    Raises:
        SubmissionError: They cannot be read, or do not make one task.
    """
    fields: dict[str, Any] = {"deadline_ms": deadline_ms, "labels": tuple(labels) if labels else None}
    try:
        tensors = {name: _tensor(name, places) for name, places in _by_name(named).items()}
        tensors = {**as_tensors({**(state or {}), **_first(files, fields)}), **tensors}
        if tensors:
            fields["tensors"] = tuple(tensors.values())
        request = TaskRequest.model_validate(fields)
    except ValidationError as error:
        raise SubmissionError(f"not a valid task: {explain(error)}") from error
    if request.images is not None:
        return Asked(request, tuple(files), request.images)
    for name, places in _by_name(named).items():
        if (contents := tensors[name].images) is not None:
            return Asked(request, tuple(places), contents)
    return Asked(request)


def as_tensors(arrays: Arrays) -> dict[str, TaskTensor]:
    """Return arrays by name as a task brings them. Raises SubmissionError for types that cannot be sent."""
    return {
        name: TaskTensor.model_validate({"name": name, **_sent(array, name)})
        for name, array in arrays.items()
    }


def _first(files: Sequence[Path], fields: dict[str, Any]) -> Arrays:
    """Put the files without a name into the fields of a task. Return the arrays that bring their names."""
    suffixes = {file.suffix.lower() for file in files}
    if not files:
        return {}
    if suffixes <= PICTURES:
        fields["images"] = tuple(map(_content, files))
    elif suffixes == {SOUND} and len(files) == 1:
        fields["sound"] = _content(files[0])
    elif suffixes == {ARRAYS} and len(files) == 1:
        return read_arrays(files[0])
    elif suffixes == {ARRAY}:
        sent = _sent(_joined(files), str(files[0]))
        fields |= {"inputs": sent["data"], "shape": sent["shape"], "dtype": sent["dtype"]}
    else:
        raise SubmissionError(
            f"give pictures ({', '.join(sorted(PICTURES))}), arrays ({ARRAY}, one {ARRAYS}) or one sound "
            f"({SOUND}), not {', '.join(map(str, files[:3]))}"
        )
    return {}


def _by_name(named: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for each in named:
        name, _, file = each.partition("=")
        if not name or not file:
            raise SubmissionError(f"--input {each}: expected NAME=FILE, like left=a.jpg")
        found.setdefault(name, []).append(Path(file))
    return found


def _tensor(name: str, files: Sequence[Path]) -> TaskTensor:
    suffixes = {file.suffix.lower() for file in files}
    if suffixes <= PICTURES:
        return TaskTensor(name=name, images=tuple(map(_content, files)))
    if suffixes == {ARRAYS} and len(files) == 1:
        array = _chosen(name, files[0])
    elif suffixes == {ARRAY}:
        array = _joined(files)
    elif suffixes == {SOUND}:
        raise SubmissionError(f"--input {name}: a sound is the first input; give it without a name")
    else:
        raise SubmissionError(
            f"--input {name}: give pictures, arrays ({ARRAY}) or one {ARRAYS}, "
            f"not {', '.join(map(str, files[:3]))}"
        )
    return TaskTensor.model_validate({"name": name, **_sent(array, f"--input {name}")})


def _chosen(name: str, file: Path) -> NDArray[Any]:
    """Return the array of that name, or the only one."""
    arrays = read_arrays(file)
    if name not in arrays and len(arrays) != 1:
        raise SubmissionError(f"{file} has no array {name!r}; it has {', '.join(arrays)[:300] or 'none'}")
    return arrays[name] if name in arrays else next(iter(arrays.values()))


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a .npz file by name. Raises SubmissionError."""
    content = _content(file)
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of damaged files, also of Python's own parser
        raise SubmissionError(f"{file} is not a readable {ARRAYS} of arrays: {_problem(error)}") from error
    raise SubmissionError(f"{file} is not a readable {ARRAYS}: it holds one array; name it {ARRAY}")


def _joined(files: Sequence[Path]) -> NDArray[Any]:
    arrays = [_array(file) for file in files]
    if len(arrays) == 1:
        return arrays[0]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise SubmissionError(f"{', '.join(map(str, files[:3]))} do not fit together: {error}") from error


def _array(file: Path) -> NDArray[Any]:
    content = _content(file)
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # of damaged files, also of Python's own parser
        raise SubmissionError(f"{file} is not a readable {ARRAY} array: {_problem(error)}") from error
    if not isinstance(array, np.ndarray):
        raise SubmissionError(f"{file} is not a readable {ARRAY}: it holds arrays by name; name it {ARRAYS}")
    return array


def _problem(error: Exception) -> str:
    """Return what is wrong with a file, without numpy's advice to load it unsafely."""
    text = str(error) or type(error).__name__
    return "it holds Python objects, or is no such file" if "pickle" in text else text


def _sent(array: NDArray[Any], what: str) -> dict[str, Any]:
    """Return an array as a task describes it: C-ordered, little-endian."""
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    if array.dtype.name not in ITEM_BYTES:
        raise SubmissionError(
            f"{what}: arrays of {array.dtype.name} cannot be sent; save it as one of {', '.join(ITEM_BYTES)}"
        )
    ordered = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.name, "shape": array.shape, "data": ordered.tobytes()}


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > MAX_TASK_BYTES:
            raise SubmissionError(f"{file}: more than the {MAX_TASK_BYTES} bytes that a task may have")
        return file.read_bytes()
    except OSError as error:
        raise SubmissionError(f"{file}: {error.strerror}") from error
