"""Types of tensors."""

from functools import cached_property
from math import prod
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from splitplace.messages.base import Part
from splitplace.messages.limits import MAX_TENSOR_RANK

DType = Literal["uint8", "int8", "int32", "int64", "float16", "float32"]
ITEM_BYTES: dict[str, int] = {"uint8": 1, "int8": 1, "int32": 4, "int64": 8, "float16": 2, "float32": 4}

Dimension = Annotated[int, Field(ge=1, le=1 << 20)]


TensorName = Annotated[str, StringConstraints(min_length=1, max_length=512)]
"""Name of a tensor in a graph."""


class TensorSpec(Part):
    """Type and shape of one tensor of a batch, **without** the batch dimension."""

    dtype: DType
    shape: Annotated[tuple[Dimension, ...], Field(max_length=MAX_TENSOR_RANK)]

    @cached_property
    def bytes_per_image(self) -> int:
        """Size of one batch item in bytes."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]
