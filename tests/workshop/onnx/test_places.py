"""Whole numbers that are no places in a table become zeros, in as few inputs as possible."""

import numpy as np
import pytest

from splitplace.workshop.onnx.places import Arrays, is_no_place, run_with_places, taken_inputs

INPUTS = {"a": np.array([0, 1]), "b": np.array([1, 1]), "c": np.array([0.5])}
REFUSAL = "indices element out of data bounds, idx=1"


def _zeros(tried: Arrays) -> str:
    return "".join(name for name, array in tried.items() if not array.any())


@pytest.mark.parametrize("needed", ["", "a", "b", "ab"])
def test_as_few_inputs_as_possible_become_zeros(needed: str) -> None:
    def run(tried: Arrays) -> str:
        if not set(needed) <= set(_zeros(tried)):
            raise RuntimeError(REFUSAL)
        return _zeros(tried)

    assert run_with_places(run, INPUTS) == needed
    assert _zeros(taken_inputs(run, INPUTS)) == needed


@pytest.mark.parametrize("message", [REFUSAL, "out of memory"])
def test_a_run_that_no_zeros_help_fails_as_it_did_first(message: str) -> None:
    runs: list[Arrays] = []

    def run(tried: Arrays) -> None:
        runs.append(tried)
        raise RuntimeError(message, len(runs))

    with pytest.raises(RuntimeError) as failure:
        run_with_places(run, INPUTS)
    assert failure.value.args == (message, 1)
    assert len(runs) == (4 if message == REFUSAL else 1)


def test_what_a_shortened_error_was_raised_from_counts() -> None:
    error = RuntimeError("ONNX Runtime cannot run the model")
    assert not is_no_place(error)
    error.__cause__ = RuntimeError(REFUSAL)
    assert is_no_place(error)
