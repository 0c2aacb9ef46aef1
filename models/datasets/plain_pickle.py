"""Reads pickles that hold nothing but plain data and byte arrays, without running what they ask for.

A pickle is a program. Two things make this one harmless: only instructions that build plain data are allowed,
and every class that it names is replaced by a stand-in of this module, that keeps data and does nothing.
"""

import io
import pickle
import pickletools
from math import prod

import numpy as np
from numpy.typing import NDArray

_ALLOWED = frozenset(
    {
        *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG1"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "REDUCE", "BUILD"),
    }
)
_MEMO_SLOTS = 1_000_000
"""A pickle may name a place in memory by any number, and all places before it would be made."""


class PlainPickleError(Exception):
    """A pickle that is torn, or that holds more than plain data and byte arrays."""


class PlainArray:
    """Stands for `numpy.ndarray`: takes the bytes of a `uint8` array."""

    array: NDArray[np.uint8]

    def __setstate__(self, state: object) -> None:
        """Called with what `ndarray.__reduce__` has written: version, shape, dtype, order, bytes."""
        match state:
            case (int(), tuple() as shape, PlainDType(name=("u1" | b"u1")), False | 0, bytes() as content):
                if all(isinstance(side, int) and side >= 0 for side in shape) and prod(shape) == len(content):
                    self.array = np.frombuffer(content, np.uint8).reshape(shape)
                    return
        msg = "an array is not of bytes, or has not as many as its shape says"
        raise PlainPickleError(msg)


class PlainDType:
    """Stands for `numpy.dtype`: keeps the name."""

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name

    def __setstate__(self, _state: object) -> None:
        """Byte order and alignment: of single bytes there is nothing to know."""


def _reconstruct(*_: object) -> PlainArray:
    return PlainArray()


_STAND_INS: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): PlainArray,
    ("numpy", "dtype"): PlainDType,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            msg = f"it names {module}.{name}"
            raise PlainPickleError(msg) from None


def load_plain_pickle(content: bytes) -> object:
    """What a pickle holds; strings of Python 2 as `bytes`, arrays as `PlainArray`.

    Raises:
        PlainPickleError: It is no pickle, or holds anything else.
    """
    try:
        for instruction, argument, _ in pickletools.genops(content):
            _check(instruction.name, argument)
        stored: object = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except PlainPickleError:
        raise
    except Exception as error:  # a torn pickle ends in almost any of Python's errors
        msg = f"it is no pickle of plain data: {error}"
        raise PlainPickleError(msg) from error
    return stored


def _check(instruction: str, argument: object) -> None:
    if instruction not in _ALLOWED:
        msg = f"it uses the instruction {instruction}"
        raise PlainPickleError(msg)
    if instruction.endswith("PUT") and isinstance(argument, int) and argument >= _MEMO_SLOTS:
        msg = f"it uses the place {argument} of its memory"
        raise PlainPickleError(msg)
