"""The base of every message (frozen, strict, nothing extra) and the types of names and quantities."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PROTOCOL_VERSION: Literal[1] = 1

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A name that may be one level of a topic: application, variant, stage, node, service."""

ClientName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A sensor's name, or the id it gave a task: a `Name` without dots, because a task key joins two by a dot."""

TaskKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[0-9a-f]{8})?$"
    ),
]
"""The name of a task between services: `<client>.<task id>.<incarnation>`, never used twice.

A sensor may use an id again; the gateway draws the incarnation. Journals of 0.1 hold keys without one.
"""


def sensor_key(key: str) -> str:
    """Return `<client>.<task id>` of a task key: the two names that the sensor knows."""
    return ".".join(key.split(".")[:2])


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Content address of a fragment."""

Milliseconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""A duration. Messages carry no points in time: clocks of small devices are wrong."""

SignedMilliseconds = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
"""A remaining slack; negative when it has run out."""

Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**53)]
NonNegative = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
MAX_TEXT = 1000
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
"""A sentence for people: a reason, an error."""

Attempt = Annotated[int, Field(ge=1, le=1000)]
"""A numbered try at running a task. Messages of older attempts are ignored."""


class Part(BaseModel):
    """Base of a value inside a message."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Message(Part):
    """Base of every message with a topic of its own."""

    version: Literal[1] = PROTOCOL_VERSION
