"""What is wrong with a value is said without pydantic's words."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from splitplace.messages.base import Name
from splitplace.messages.names import SensorName
from splitplace.messages.validation_errors import NAME_RULE, problem_of


class _Settings(BaseModel, extra="forbid"):
    size: int


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (Name, "a b", NAME_RULE),
        (Annotated[str, Field(pattern="^a$")], "b", "String should match pattern '^a$'"),
        (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
        (Annotated[int, Field(le=9)], 10, "must be at most 9"),
        (Annotated[float, Field(gt=0)], 0, "must be more than 0"),
        (Annotated[float, Field(lt=1)], 1, "must be less than 1"),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "must be a finite number"),
        (Annotated[str, Field(max_length=2)], "abc", "must have at most 2 characters"),
        (Annotated[tuple[int, ...], Field(min_length=1)], (), "must have at least 1 entries"),
        (int, "many", "must be a whole number"),
        (int, 1.5, "must be a whole number"),
        (float, "much", "must be a number"),
        (bool, "perhaps", "must be true or false"),
        (str, 1, "must be a text"),
        (Literal["crop", "pad"], "cut", "must be 'crop' or 'pad'"),
        (_Settings, {}, "is missing"),
        (_Settings, {"size": 1, "colour": 2}, "is not known"),
        (SensorName, "a/b", "it holds +, # or /, which have a meaning in topics"),
    ],
)
def test_a_problem_is_said_in_plain_words(kind: Any, value: object, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert problem_of(caught.value.errors()[0]) == problem
