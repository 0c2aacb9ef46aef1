"""Tensors that a network hands to its own next call."""

from splitplace.messages.base import Part
from splitplace.messages.tensors import TensorName


class StateTensor(Part):
    """What a network hands to its own next call: the sender gets it back and sends it again."""

    input: TensorName
    """The input that reads it; zeros where the sender has none yet."""
    output: TensorName
    """The output that makes the next one, of the same type and shape."""
