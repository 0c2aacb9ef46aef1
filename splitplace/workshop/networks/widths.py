"""How a width multiplier changes a number of channels."""

MULTIPLE = 8
"""Channels come in multiples of this: vector units like it, and torch 2.13 crashes in the backward pass of
tensors that lie channels-last and have fewer."""
_LEAST_SHARE = 0.9


def scaled(channels: int, multiplier: float) -> int:
    """The multiple of 8 nearest to `channels * multiplier`, but never less than 90 % of that.

    The rule of the MobileNet papers. Channels that are printed as something else stay with a multiplier of 1.
    """
    if multiplier == 1:
        return channels
    wanted = channels * multiplier
    rounded = max(MULTIPLE, int(wanted + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return rounded if rounded >= _LEAST_SHARE * wanted else rounded + MULTIPLE
