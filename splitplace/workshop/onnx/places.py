"""Run networks on whole numbers that may be places in tables, where some tables have one row only."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_NO_PLACE = ("out of data bounds", "within bounds", "invalid ind")
"""What ONNX Runtime says of a place that another tensor does not have."""
_Made = TypeVar("_Made")
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by the names of their tensors."""


def is_no_place(error: Exception) -> bool:
    """Whether ONNX Runtime refused a place that another tensor does not have."""
    said = f"{error} {error.__cause__}"
    return any(sign in said for sign in _NO_PLACE)


def run_with_places(run: Callable[[Arrays], _Made], inputs: Arrays) -> _Made:
    """Run on inputs; where their whole numbers are no places, on zeros in one of them, then in all.

    As few as possible become zeros, because a size that depends on values shows where these differ.

    Raises:
        Exception: What the first run raises, if no other one succeeds.
    """
    try:
        return run(inputs)
    except Exception as error:  # ONNX Runtime's C++ exceptions share no base class
        if is_no_place(error):
            for changed in _with_zeros(inputs):
                with suppress(Exception):
                    return run(changed)
        raise


def taken_inputs(run: Callable[[Arrays], object], inputs: Arrays) -> Arrays:
    """Run once as `run_with_places` does, and return the inputs that were taken."""

    def run_and_keep(tried: Arrays) -> Arrays:
        run(tried)
        return tried

    return run_with_places(run_and_keep, inputs)


def _with_zeros(inputs: Arrays) -> Iterator[Arrays]:
    places = {name: np.zeros_like(array) for name, array in inputs.items() if array.dtype.kind in "iu"}
    for name, zeros in places.items():
        yield {**inputs, name: zeros}
    if len(places) > 1:
        yield {**inputs, **places}
