"""Weights that lie in files outside their model, so that a copy of the model takes little memory.

Their `location` is an absolute path while the workshop works with them: whoever reads a weight maps its part
of the file, and ONNX Runtime does the same.
"""

import mmap
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from splitplace.workshop.onnx.light import LARGE_WEIGHT_BYTES, is_outside, without_initializers

PAGE = 4096
"""Weights begin at a page: whole pages are mapped without a copy."""


class Place(NamedTuple):
    """Where a weight outside its model lies."""

    location: str
    offset: int
    length: int | None
    """None where the model does not say it."""


def place_of(tensor: onnx.TensorProto) -> Place:
    """Return where a weight lies. Raises ValueError if that is no part of a file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = entries.get("length")
    return Place(
        entries.get("location", ""), int(entries.get("offset", 0)), None if length is None else int(length)
    )


def raw_of(tensor: onnx.TensorProto) -> memoryview:
    """Return the bytes of a weight as they lie in memory; none for texts. One outside is mapped, not read.

    Raises:
        OSError: Its file cannot be read.
    """
    if tensor.data_type == TensorProto.STRING:
        return memoryview(b"")
    if is_outside(tensor):
        return _mapped(place_of(tensor))
    if not tensor.HasField("raw_data"):
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return memoryview(tensor.raw_data)


def values_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return the values of a weight, wherever it lies. Raises OSError as `raw_of` does."""
    if is_outside(tensor):
        raw = bytes(raw_of(tensor))
        tensor = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)
    values: NDArray[Any] = numpy_helper.to_array(tensor)
    return values


def laid_aside(model: onnx.ModelProto, place: Path) -> onnx.ModelProto:
    """Return the model with all its large weights in one file.

    Args:
        model: It is not changed, and may hold some weights outside already.
        place: The file, which is not there yet.

    Raises:
        OSError: The disk refuses.
    """
    bare = without_initializers(model)
    with place.open("xb") as file:
        for tensor in model.graph.initializer:
            raw = raw_of(tensor)
            if len(raw) <= LARGE_WEIGHT_BYTES:
                bare.graph.initializer.append(tensor)
                continue
            file.write(bytes(-file.tell() % PAGE))
            bare.graph.initializer.append(outside(tensor, place, file.tell(), len(raw)))
            file.write(raw)
    return bare


def outside(tensor: onnx.TensorProto, place: Path | str, offset: int, length: int) -> onnx.TensorProto:
    """Return a weight that lies in a part of a file. A text stands for a file in the folder of the model."""
    found = onnx.TensorProto(
        name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL
    )
    location = str(place.absolute()) if isinstance(place, Path) else place
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        found.external_data.add(key=key, value=value)
    return found


def folders_of(model: onnx.ModelProto) -> set[Path]:
    """Return the folders in which a model's weights outside lie."""
    return {Path(place_of(tensor).location).parent for tensor in _outside(model)}


def with_bare_places(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """Return a model that names the file of its weights without its folder, and that folder.

    ONNX Runtime reads no others. A model without weights outside is returned as it is, with None.
    """
    folders = folders_of(model)
    if not folders:
        return model, None
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in _outside(changed):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = Path(entry.value).name
    (folder,) = folders
    return changed, folder


def _outside(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return list(filter(is_outside, model.graph.initializer))


def _mapped(place: Place) -> memoryview:
    if not place.length:
        return memoryview(b"")
    extra = place.offset % mmap.ALLOCATIONGRANULARITY
    with Path(place.location).open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), extra + place.length, access=mmap.ACCESS_READ, offset=place.offset - extra
        )
    return memoryview(mapped)[extra:]
