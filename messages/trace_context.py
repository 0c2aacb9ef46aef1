"""The trace that a task belongs to: `traceparent` of W3C Trace Context, a user property of MQTT 5."""

import re
from typing import Annotated

from pydantic import StringConstraints

TRACEPARENT = "traceparent"
"""Name of the user property, of tasks and answers."""

_FORM = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
_PATTERN = re.compile(_FORM)
_ZEROS = re.compile(r"00-(?:0+-[0-9a-f]+|[0-9a-f]+-0+)-[0-9a-f]{2}")

TraceParent = Annotated[str, StringConstraints(pattern=_FORM)]
"""Version, trace, span of the sender, and flags, as lower-case hexadecimal digits."""


def is_traceparent(value: str) -> bool:
    """Whether a text names a trace and a span. Ids of zeros alone are not valid."""
    return len(value) == 55 and bool(_PATTERN.match(value)) and not _ZEROS.fullmatch(value)  # noqa: PLR2004
