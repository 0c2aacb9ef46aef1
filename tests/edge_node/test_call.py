"""A call of a fragment with several tensors: named, checked, handed on, and encoded each by itself."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from splitplace.edge_node.call import Failure, call
from splitplace.edge_node.queue import MicroBatchJob
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.messages.frames import EncodedBundle, decode_bundle, encode_bundle
from splitplace.messages.pieces import NamedTensor
from splitplace.messages.tensors import TensorSpec
from tests.edge_node.jobs import make_job

DEEP = NamedTensor(name="deep", spec=TensorSpec(dtype="float32", shape=(3,)))
SKIPPED = NamedTensor(name="skipped", spec=TensorSpec(dtype="float32", shape=(500,)))
DEEPER = NamedTensor(name="deeper", spec=TensorSpec(dtype="float32", shape=(2,)))
Arrays = dict[str, NDArray[Any]]


class Fragment:
    """Looks like a loaded fragment: reads two tensors, makes one, hands one on."""

    inputs = (DEEP, SKIPPED)
    outputs = (SKIPPED, DEEPER)
    has_all_cores = False

    def run_bundle(self, tensors: Mapping[str, NDArray[Any]], *, all_cores: bool = False) -> Arrays:
        assert not all_cores
        return {"skipped": tensors["skipped"], "deeper": tensors["deep"][:, :2] + 1}


RUNTIME = cast("FragmentRuntime", Fragment())


def arrays(images: int = 2) -> Arrays:
    return {
        "skipped": np.zeros((images, 500), np.float32),
        "deep": np.arange(images * 3, dtype=np.float32).reshape(images, 3),
    }


def job(tensors: Arrays, *, compress: bool = False) -> MicroBatchJob:
    sent = encode_bundle(tensors, compress=compress)
    made = make_job()
    header = made.header.model_copy(update=sent.fields)
    return MicroBatchJob(header, made.route, sent.body, 0.0, 1000.0, 1.0)


def called(tensors: Arrays, *, compressed: bool = False, compress: bool = False) -> EncodedBundle | Failure:
    return call(job(tensors, compress=compressed), RUNTIME, all_cores=False, compress=compress)


def decoded(bundle: EncodedBundle | Failure) -> Arrays:
    assert isinstance(bundle, EncodedBundle)
    header = make_job().header.model_copy(update=bundle.fields)
    values = decode_bundle(header, bundle.body)
    return {str(tensor.name): value for tensor, value in zip(bundle.tensors, values, strict=True)}


@pytest.mark.parametrize("compressed", [False, True])
def test_tensors_come_in_any_order_and_what_a_later_stage_needs_is_handed_on(*, compressed: bool) -> None:
    made = decoded(called(arrays(), compressed=compressed))
    assert list(made) == ["skipped", "deeper"]
    assert np.array_equal(made["deeper"], arrays()["deep"][:, :2] + 1)
    assert np.array_equal(made["skipped"], arrays()["skipped"])


def test_what_is_handed_on_stays_encoded_as_it_came() -> None:
    made = called(arrays(), compressed=True, compress=False)
    assert isinstance(made, EncodedBundle)
    assert [(sent.name, sent.codec) for sent in made.tensors] == [("skipped", "zstd"), ("deeper", "raw")]


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"deep": arrays()["deep"]}, "1 tensors came, the fragment reads 2"),
        (arrays() | {"more": arrays()["deep"]}, "3 tensors came"),
        ({"deep": arrays()["deep"], "skip": arrays()["skipped"]}, "reads 'skipped' too"),
        (arrays() | {"deep": arrays()["deep"].astype(np.float16)}, "input 'deep' is float16"),
        (arrays() | {"deep": arrays()["deep"][:, :2]}, r"input 'deep' is float32\[2, 2\]"),
    ],
    ids=str,
)
def test_tensors_that_the_fragment_does_not_read_are_a_failure_of_the_input(
    tensors: Arrays, reason: str
) -> None:
    result = called(tensors)
    assert isinstance(result, Failure)
    assert result.kind == "input"
    assert result.reason.startswith(reason) or reason.replace("\\", "") in result.reason
