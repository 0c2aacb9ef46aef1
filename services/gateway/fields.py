"""Fields of a task as makers of sensors write them, brought into the form of `TaskRequest`. Pure.

Numbers come as text or with a decimal point, a single picture comes without its list, binary data comes as
base64 with line breaks or as a data URL. Whatever has one meaning only is taken. Fields that nobody knows are
left out and named in a warning.
"""

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from splitplace.messages.task import TaskRequest, TaskTensor
from splitplace.services.gateway.picture_files import from_base64

MAX_NAMED = 5
"""Ignored fields that a warning names."""
BUFFER_OF_NUMBERS: Final = (
    "a Buffer of numbers; send base64 (msg.payload.toString('base64')) or the picture itself"
)
_SHOWN = 40
_SINGULAR: Final[Mapping[str, str]] = {"image": "images", "label": "labels"}


class FieldError(ValueError):
    """A field has no meaning."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def tidy(fields: dict[str, Any]) -> tuple[str, ...]:
    """Bring fields into the form that `TaskRequest` validates. Returns warnings about ignored ones.

    Args:
        fields: of a JSON object or msgpack map; changed.

    Raises:
        FieldError: a field cannot mean anything.
    """
    if _is_buffer(fields):
        raise FieldError("body", BUFFER_OF_NUMBERS)
    for name in fields.keys() & TaskRequest.model_fields.keys() - _BINARY:
        fields[name] = as_text(fields[name])
    for singular, plural in _SINGULAR.items():
        if singular in fields:
            if plural in fields:
                raise FieldError(singular, f"`{plural}` is given as well; give one of them")
            fields[plural] = fields.pop(singular)
    ignored = [name for name in fields if name not in TaskRequest.model_fields]
    for name in (*ignored, *(name for name, value in fields.items() if value is None)):
        fields.pop(name, None)
    for name, convert in _CONVERSIONS.items():
        if fields.get(name) is not None:
            try:
                fields[name] = convert(fields[name])
            except (ValueError, OverflowError) as error:
                raise FieldError(name, str(error)) from None
    return (f"fields that are not known were ignored: {_listed(ignored)}",) if ignored else ()


def as_text(value: Any) -> Any:  # noqa: ANN401
    """Return text that an old packer of msgpack wrote as bytes; anything else as it is."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_buffer(value: Any) -> bool:  # noqa: ANN401
    """Whether this is how JavaScript writes a Buffer of Node.js as JSON."""
    return isinstance(value, dict) and value.get("type") == "Buffer" and "data" in value


def _listed(names: list[Any]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(_printable(str(name)[:_SHOWN]) for name in names[:MAX_NAMED]) + more


def _printable(text: str) -> str:
    return "".join("?" if unicodedata.category(sign)[0] == "C" else sign for sign in text)


def _number(value: Any) -> Any:  # noqa: ANN401 - as the sender wrote it; what is no number is left to the model
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{value[:_SHOWN]!r} is not a number") from None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _whole(value: Any) -> Any:  # noqa: ANN401
    number = _number(value)
    if isinstance(number, float):
        if not number.is_integer():
            raise ValueError(f"{number} is not a whole number")
        return value if isinstance(value, int) else int(number)
    return value


def _whole_numbers(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list | tuple):
        return tuple(map(_whole, value))
    return (_whole(value),) if isinstance(value, int | float | str) else value


def _name(value: Any) -> Any:  # noqa: ANN401
    """Take a counter, a measurement or a switch as a name: as JSON writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a name")
    return str(value) if isinstance(value, int | float) else value


def _bytes(value: Any) -> Any:  # noqa: ANN401
    if _is_buffer(value):
        raise ValueError(BUFFER_OF_NUMBERS)
    return from_base64(value) if isinstance(value, str) else value


def _files(value: Any) -> Any:  # noqa: ANN401
    files = value if isinstance(value, list | tuple) else (value,)
    return tuple(map(_bytes, files))


def _tensors(value: Any) -> Any:  # noqa: ANN401
    """Take named tensors as a list, or as an object by their names."""
    if isinstance(value, dict):
        value = [
            {**each, "name": name} if isinstance(each, dict) else each
            for name, each in ((as_text(name), each) for name, each in value.items())
        ]
    if not isinstance(value, list | tuple):
        raise ValueError("expected a list of objects with name, dtype, shape and data, or name and images")  # noqa: TRY004
    return tuple(map(_tensor, value))


def _tensor(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        raise ValueError("expected objects with name, dtype, shape and data")  # noqa: TRY004
    fields = {as_text(name): each for name, each in value.items()}
    if "image" in fields:
        fields.setdefault("images", fields.pop("image"))
    known = {
        name: each for name, each in fields.items() if name in TaskTensor.model_fields and each is not None
    }
    for name in known.keys() - {"data", "images"}:
        known[name] = as_text(known[name])
    for name, convert in (("shape", _whole_numbers), ("data", _bytes), ("images", _files)):
        if name in known:
            known[name] = convert(known[name])
    return known


_BINARY: Final = frozenset({"inputs", "images", "sound", "tensors"})
_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "version": _whole,
    "client": _name,
    "task": _name,
    "deadline_ms": _number,
    "shape": _whole_numbers,
    "labels": _whole_numbers,
    "inputs": _bytes,
    "images": _files,
    "sound": _bytes,
    "tensors": _tensors,
}
