"""Reads pickles that hold nothing but plain data and byte arrays, without Python's unpickler.

A pickle is a program for a small stack machine. This is that machine with only the instructions that build
plain data. Nothing is imported or called: of the names that a pickle may give, three are known, and each
stands for a value of this module.
"""

import pickletools
from collections.abc import Callable, Mapping
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError

_Kind = TypeVar("_Kind")
_MARK = object()
_ARRAY_MAKER, _ARRAY_TYPE, _DTYPE = object(), object(), object()
_NAMES: Mapping[str, object] = {
    "numpy.core.multiarray _reconstruct": _ARRAY_MAKER,
    "numpy._core.multiarray _reconstruct": _ARRAY_MAKER,
    "numpy ndarray": _ARRAY_TYPE,
    "numpy dtype": _DTYPE,
}
_BYTE_STRINGS = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
"""Strings of Python 2, which are bytes; `pickletools` gives them as Latin-1."""
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG1", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE"}
)
_CONSTANTS: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PlainPickleError(SplitPlaceError):
    """A pickle that is torn, or that holds more than plain data and byte arrays."""


class PlainArray:
    """An array of bytes, once its state is known."""

    array: NDArray[np.uint8]

    def set_state(self, state: object) -> None:
        """Takes what `ndarray.__reduce__` has written: version, shape, dtype, order, bytes."""
        match state:
            case (int(), tuple() as shape, PlainDType(name=("u1" | b"u1")), False | 0, bytes() as content):
                if all(isinstance(side, int) and side >= 0 for side in shape) and prod(shape) == len(content):
                    self.array = np.frombuffer(content, np.uint8).reshape(shape)
                    return
        raise PlainPickleError("an array is not of bytes, or has not as many as its shape says")


class PlainDType:
    """The type of an array's elements: its name."""

    def __init__(self, name: object) -> None:
        self.name = name

    def set_state(self, _state: object) -> None:
        """Byte order and alignment: of single bytes there is nothing to know."""


def load_plain_pickle(content: bytes) -> object:
    """What a pickle holds; strings of Python 2 as `bytes`, arrays as `PlainArray`.

    Raises:
        PlainPickleError: It is no pickle, or holds anything else.
    """
    machine = _Machine()
    try:
        for instruction, argument, _ in pickletools.genops(content):
            machine.step(instruction.name, argument)
        (value,) = machine.stack
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise PlainPickleError(f"it is no pickle of plain data: {error}") from error
    return value


class _Machine:
    """The stack, and the memory of values that are used again."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self._memory: dict[object, object] = {}

    def step(self, name: str, argument: object) -> None:
        """Carries out one instruction. Raises PlainPickleError where it is not allowed."""
        push = self.stack.append
        if name in {"PROTO", "STOP"}:
            return
        if name in _CONSTANTS:
            push(_CONSTANTS[name]())
        elif name in _VALUES:
            push(argument)
        elif name in _BYTE_STRINGS and isinstance(argument, str):
            push(argument.encode("latin-1"))
        elif name in {"PUT", "BINPUT", "LONG_BINPUT"}:
            self._memory[argument] = self.stack[-1]
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            push(self._memory[argument])
        elif name in _TUPLES:
            push(tuple(self._pop(_TUPLES[name])))
        elif name == "TUPLE":
            push(tuple(self._pop_to_mark()))
        else:
            self._change(name, argument)

    def _change(self, name: str, argument: object) -> None:
        """Instructions that put values into others, or make arrays."""
        if name in {"APPEND", "APPENDS"}:
            values = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            self._top(list).extend(values)
        elif name in {"SETITEM", "SETITEMS"}:
            values = self._pop(2) if name == "SETITEM" else self._pop_to_mark()
            self._top(dict).update(zip(values[::2], values[1::2], strict=True))
        elif name == "GLOBAL":
            if argument not in _NAMES:
                raise PlainPickleError(f"it names {str(argument).replace(' ', '.')}")
            self.stack.append(_NAMES[str(argument)])
        elif name == "REDUCE":
            self.stack.append(_made(*self._pop(2)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            target = self.stack[-1]
            if not isinstance(target, PlainArray | PlainDType):
                raise PlainPickleError("it sets the state of what is no array")
            target.set_state(state)
        else:
            raise PlainPickleError(f"it uses the instruction {name}")

    def _pop(self, count: int) -> list[object]:
        values = self.stack[-count:]
        if len(values) != count or any(value is _MARK for value in values):
            raise ValueError(f"{count} values are needed")
        del self.stack[-count:]
        return values

    def _pop_to_mark(self) -> list[object]:
        marks = [index for index, value in enumerate(self.stack) if value is _MARK]
        start = marks[-1]
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def _top(self, kind: type[_Kind]) -> _Kind:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise TypeError(f"{type(top).__name__} is no {kind.__name__}")
        return top


def _made(function: object, arguments: object) -> object:
    """What one of the known names makes of its arguments."""
    if function is _ARRAY_MAKER:
        return PlainArray()
    if function is _DTYPE and isinstance(arguments, tuple) and arguments:
        return PlainDType(arguments[0])
    raise PlainPickleError("it calls what makes no array")
