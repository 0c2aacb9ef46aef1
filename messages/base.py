"""The base of every message (frozen, strict) and the types of names, texts and quantities."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

PROTOCOL_VERSION: Literal[2] = 2
"""Version of all messages between parts of the system. 1 until SplitPlace 0.2."""

SENSOR_VERSION: Literal[1] = 1
"""Version of what sensors send and get."""

NAME_FORM = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_FORM)]
"""A name that may be one level of a topic: application, variant, stage, node, service."""

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

_SPACES = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that change the direction of writing, and halves of surrogate pairs."""


def one_line(text: str) -> str:
    """Return a text as one line of printable characters.

    Texts travel to terminals and logs: no message may steer a terminal, forge a line, or hide what it says.
    """
    if text.isprintable():  # as nearly all are
        return text
    return _CONTROLS.sub("", _SPACES.sub(" ", text))


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(one_line)]
"""A sentence for people: a reason, an error. One line without control characters."""

Words = Annotated[str, StringConstraints(max_length=200), AfterValidator(one_line)]
"""A title, a version. One line without control characters."""

Attempt = Annotated[int, Field(ge=1, le=1000)]
"""A numbered try at running a task. Messages of older attempts are ignored."""


class Part(BaseModel):
    """Base of a value inside a message.

    Fields of a newer minor version are ignored; what cannot be ignored gets another protocol version.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Message(Part):
    """Base of every message with a topic of its own."""

    version: Literal[2] = PROTOCOL_VERSION
