"""What a topic is: a pattern, the message on it, and the parts that write and read it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

from splitplace.messages import limits
from splitplace.messages.base import Message

MessageT = TypeVar("MessageT", bound=Message)

Encoding = Literal["task", "json", "frame", "word"]
"""`task`: JSON, msgpack or a picture, by content; `json`: always JSON; `frame`: see messages.frames; `word`:
the bare text of the message's only field of its own."""

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Topic(Generic[MessageT]):
    """A topic pattern and everything that holds for messages on it."""

    pattern: str
    message: type[MessageT]
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]
    summary: str
    encoding: Encoding = "json"
    qos: Literal[0, 1] = 1
    retain: bool = False
    max_bytes: int = limits.MAX_CONTROL_BYTES
    is_open: bool = False
    """Whether the last parameter stands for any number of levels."""

    @property
    def level(self) -> str:
        """Regular expression of a parameter. Sensors may leave a level empty; no part of the system does."""
        return "[^/]*" if self.encoding == "task" else "[^/]+"

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the variable levels."""
        return tuple(_PARAMETER.findall(self.pattern))

    @cached_property
    def filter(self) -> str:
        """The MQTT subscription filter, without prefix."""
        return _PARAMETER.sub("+", self.pattern) + ("/#" if self.is_open else "")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        expression = _PARAMETER.sub(rf"(?P<\1>{self.level})", self.pattern)
        if self.is_open:
            expression = expression.removesuffix(f"{self.level})") + ".*)"
        return re.compile(expression, re.DOTALL)

    def at(self, **values: str) -> str:
        """Return the topic for these parameters, without prefix. Raises KeyError for a missing one."""
        return self.pattern.format(**values)

    def name_of(self, message: MessageT, **values: str) -> str:
        """The topic of a message, without prefix: its fields give the parameters that are not in `values`."""
        fields = {name: getattr(message, name) for name in self.parameters if hasattr(message, name)}
        return self.at(**(fields | values))

    def encoded(self, message: MessageT) -> bytes:
        """Return the payload of a message. Frames have a body, too: see messages.frames."""
        if self.encoding == "word":
            return str(getattr(message, self.word)).encode()
        return message.model_dump_json().encode()

    @property
    def word(self) -> str:
        """The field that is the payload where the encoding is `word`."""
        (field,) = self.message.model_fields.keys() - Message.model_fields.keys()
        return field

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the parameters in a topic (without prefix); None if the topic does not match."""
        found = self._regex.fullmatch(topic)
        return found.groupdict() if found else None
