"""Tell a user what takes so long."""

from collections.abc import Callable

Told = Callable[[str], None]
"""A function that is told what begins now, in a few words."""


def tell_nobody(_: str) -> None:
    """Say nothing."""
