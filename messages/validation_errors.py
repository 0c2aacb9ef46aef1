"""What pydantic finds wrong with a value, in words for people who do not know pydantic."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic_core import ErrorDetails

from splitplace.messages.base import NAME_FORM

NAME_RULE = "must be 1 to 64 letters, digits, _, . or -, a letter or digit first"

_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "missing": "is missing",
        "extra_forbidden": "is not known",
        "greater_than": "must be more than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "too_short": "must have at least {min_length} entries",
        "too_long": "must have at most {max_length} entries",
        "string_too_short": "must have at least {min_length} characters",
        "string_too_long": "must have at most {max_length} characters",
        "string_type": "must be a text",
        "literal_error": "must be {expected}",
        "finite_number": "must be a finite number",
        "value_error": "{error}",
    }
)
_KINDS: Mapping[str, str] = MappingProxyType(
    {"int": "must be a whole number", "float": "must be a number", "bool": "must be true or false"}
)


def problem_of(error: ErrorDetails) -> str:
    """Return what is wrong with a value, without its name, such as `must be at least 1`."""
    kind, details = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch" and details.get("pattern") == NAME_FORM:
        return NAME_RULE
    template = _TEMPLATES.get(kind) or _KINDS.get(kind.partition("_")[0])
    return (
        template.format_map({name: _shown(each) for name, each in details.items()})
        if template
        else error["msg"]
    )


def _shown(detail: object) -> object:
    """Return 1 for the bound 1.0."""
    return int(detail) if isinstance(detail, float) and detail.is_integer() else detail
