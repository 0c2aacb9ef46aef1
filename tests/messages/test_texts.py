"""Texts of messages cannot steer a terminal or forge a line of a log."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator

from splitplace.messages.base import Part, Text, one_line
from splitplace.messages.cluster import StageFailure
from splitplace.messages.findings import Prediction
from splitplace.messages.topics import all_topics
from splitplace.terminal import printable

HOSTILE = "\x1b]0;title\x07 a\u202eb \x9b31m c\r\n2026-11-28 INFO forged\t\u2028d\u2066\x00\x7f\u061c"


def parts_of(annotation: Any, found: set[type[Part]]) -> set[type[Part]]:
    """Add all message types that a type expression names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, Part) and annotation not in found:
        found.add(annotation)
        for field in annotation.model_fields.values():
            parts_of(field.annotation, found)
    for inner in get_args(annotation):
        parts_of(inner, found)
    return found


def texts_in(annotation: Any, metadata: Iterable[Any]) -> Iterator[list[Any]]:
    """What is demanded of each text in a type expression."""
    if annotation is str:
        yield list(metadata)
    elif get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        yield from texts_in(inner, more)
    elif get_origin(annotation) is not Literal:
        for inner in get_args(annotation):
            yield from texts_in(inner, ())


def is_guarded(demands: list[Any]) -> bool:
    """Whether a text is cleaned or bound to a pattern."""
    return any(
        (isinstance(demand, AfterValidator) and demand.func is one_line) or "pattern=" in repr(demand)
        for demand in demands
    )


PARTS: set[type[Part]] = set()
for known in all_topics():
    parts_of(known.message, PARTS)


@pytest.mark.parametrize("part", sorted(PARTS, key=repr))
def test_every_text_of_every_message_is_cleaned_or_bound_to_a_pattern(part: type[Part]) -> None:
    for name, field in part.model_fields.items():
        assert all(map(is_guarded, texts_in(field.annotation, field.metadata))), name


@given(st.text() | st.just(HOSTILE))
def test_a_cleaned_text_is_one_line_that_prints_as_it_is(text: str) -> None:
    cleaned = one_line(text)
    assert printable(cleaned) == cleaned
    assert len(cleaned.splitlines()) <= 1
    assert one_line(cleaned) == cleaned
    cleaned.encode()


def test_what_people_write_stays() -> None:
    assert one_line("Größe: 3 µs → 猫 👩‍🔬") == "Größe: 3 µs → 猫 👩‍🔬"
    assert one_line("one\ntwo\r\n\tthree") == "one two three"


def test_a_forged_reason_or_label_arrives_harmless() -> None:
    fields = {"node": "n1", "task": "c.t", "attempt": 1, "stage": "s", "kind": "runtime", "reason": HOSTILE}
    failure = StageFailure.model_validate(fields)
    assert failure.reason == "]0;title ab 31m c 2026-11-28 INFO forged d"
    assert Prediction(label="\x1b[2Jcat", index=0, confidence=1.0).label == "[2Jcat"
    assert AfterValidator(one_line) in get_args(Text)
