"""One call of a fragment: decode the tensors, run, encode the outputs. No error escapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.queue import MicroBatchJob
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.sessions import FragmentError
from splitplace.messages.cluster import FailureKind
from splitplace.messages.frames import (
    EncodedBundle,
    FrameError,
    TensorHeader,
    bodies,
    decode_bundle,
    encode_bundle,
)
from splitplace.messages.limits import MAX_TENSOR_BYTES
from splitplace.messages.pieces import bundle_bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a job could not be done."""

    kind: FailureKind
    reason: str


def call(
    job: MicroBatchJob, runtime: FragmentRuntime, *, all_cores: bool, compress: bool
) -> EncodedBundle | Failure:
    """Run a fragment on a micro-batch.

    Args:
        job: the micro-batch.
        runtime: the fragment.
        all_cores: whether to use all cores.
        compress: try zstd on the outputs. What is handed on stays encoded as it came.
    """
    try:
        names = _names(job.header, runtime)
        tensors = dict(zip(names, decode_bundle(job.header, job.encoded), strict=True))
        problem = _misfit(tensors, runtime)
        if problem:
            return Failure("input", problem)
        outputs = runtime.run_bundle(tensors, all_cores=all_cores)
        came = dict(zip(names, bodies(job.header, job.encoded), strict=True))
        return encode_bundle(outputs, compress=compress, handed_on=came)
    except FrameError as error:
        return Failure("input", str(error))
    except MemoryError:
        return Failure("memory", "out of memory while running")
    except FragmentError as error:
        return Failure("runtime", str(error))
    except Exception as error:  # noqa: BLE001 - no error of a native library may end the thread
        return Failure("runtime", repr(error))


def _names(header: TensorHeader, runtime: FragmentRuntime) -> tuple[str, ...]:
    """Return the names of the tensors that came; a single one may come without."""
    if not header.more and header.name is None:
        return (runtime.inputs[0].name,)
    return tuple(tensor.name or "" for tensor in header.tensors)


def _misfit(tensors: Mapping[str, NDArray[Any]], runtime: FragmentRuntime) -> str | None:
    """Return why a fragment cannot run on a batch; None if it can."""
    if len(runtime.inputs) != len(tensors):
        return f"{len(tensors)} tensors came, the fragment reads {len(runtime.inputs)}"
    for expected in runtime.inputs:
        spec, tensor = expected.spec, tensors.get(expected.name)
        if tensor is None:
            return f"the tensors are {sorted(tensors)}, the fragment reads {expected.name!r} too"[:500]
        if tensor.dtype != np.dtype(spec.dtype) or tensor.shape[1:] != spec.shape:
            shape = ", ".join(map(str, spec.shape))
            return (
                f"input {expected.name!r} is {tensor.dtype}{list(tensor.shape)}, "
                f"the fragment reads {spec.dtype}[N, {shape}]"
            )
    images = len(tensors[runtime.inputs[0].name])
    output_bytes = images * bundle_bytes(runtime.outputs)
    if output_bytes > MAX_TENSOR_BYTES:
        return f"the outputs would have {output_bytes} bytes (limit {MAX_TENSOR_BYTES})"
    return None
