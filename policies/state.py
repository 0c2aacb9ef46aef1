"""What a policy has learnt, as JSON: how it survives a restart of its service."""

from collections.abc import Mapping

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
State = Mapping[str, Json]
"""A policy's memory. Empty for one that learns nothing."""


class StateError(ValueError):
    """A saved state that is not one of the policy that is asked to restore it."""
