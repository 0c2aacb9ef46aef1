"""The state of a learning policy as JSON, which it keeps over restarts."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from splitplace.errors import SplitPlaceError

Json = JsonValue
State = Mapping[str, Json]
"""A policy's saved state. Empty for one that learns nothing."""


class StateError(SplitPlaceError, ValueError):
    """A saved state that does not belong to the policy that should restore it."""


Memory = TypeVar("Memory", bound=BaseModel)


def validated_state(kind: type[Memory], state: State) -> Memory:
    """A saved state as the model that describes it.

    Raises:
        StateError: it does not fit; the message says where.
    """
    try:
        return kind.model_validate(state)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StateError(f"{where}: {first['msg']}") from error
