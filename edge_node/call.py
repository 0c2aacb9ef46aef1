"""One call of a fragment: decode the tensor, run, encode the output. No error escapes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.edge_node.queue import MicroBatchJob
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.sessions import FragmentError
from splitplace.messages.cluster import FailureKind
from splitplace.messages.frames import Codec, FrameError, decode_tensor, encode_tensor
from splitplace.messages.limits import MAX_TENSOR_BYTES
from splitplace.messages.tensors import ITEM_BYTES, DType


@dataclass(frozen=True, slots=True)
class Output:
    """The encoded output of a fragment for a micro-batch."""

    codec: Codec
    encoded: bytes
    dtype: DType
    shape: tuple[int, ...]

    @property
    def raw_bytes(self) -> int:
        """Size of the decoded tensor in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason why a job could not be done."""

    kind: FailureKind
    reason: str


def call(
    job: MicroBatchJob, runtime: FragmentRuntime, *, all_cores: bool, compress: bool
) -> Output | Failure:
    """Run a fragment on a micro-batch.

    Args:
        job: the micro-batch.
        runtime: the fragment.
        all_cores: whether to use all cores.
        compress: try zstd on the output.
    """
    try:
        tensor = decode_tensor(job.header, job.encoded)
        problem = _misfit(tensor, runtime)
        if problem:
            return Failure("input", problem)
        output = runtime.run(tensor, all_cores=True) if all_cores else runtime.run(tensor)
        codec, encoded = encode_tensor(output, compress=compress)
    except FrameError as error:
        return Failure("input", str(error))
    except MemoryError:
        return Failure("memory", "out of memory while running")
    except FragmentError as error:
        return Failure("runtime", str(error))
    except Exception as error:  # noqa: BLE001 - no error of a native library may end the thread
        return Failure("runtime", repr(error))
    return Output(codec, encoded, runtime.output.dtype, output.shape)


def _misfit(tensor: NDArray[Any], runtime: FragmentRuntime) -> str | None:
    """Return why a fragment cannot run on a batch; None if it can."""
    expected = runtime.input
    if tensor.dtype != np.dtype(expected.dtype) or tensor.shape[1:] != expected.shape:
        shape = ", ".join(map(str, expected.shape))
        return f"input is {tensor.dtype}{list(tensor.shape)}, the fragment reads {expected.dtype}[N, {shape}]"
    output_bytes = len(tensor) * runtime.output.bytes_per_image
    if output_bytes > MAX_TENSOR_BYTES:
        return f"the output would have {output_bytes} bytes (limit {MAX_TENSOR_BYTES})"
    return None
