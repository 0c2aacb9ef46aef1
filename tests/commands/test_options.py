"""Durations and settings from the command line."""

import pytest
import typer

from splitplace.commands.shared.options import parse_duration_ms


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("300", 300),
        ("300ms", 300),
        ("2s", 2000),
        ("1.5s", 1500),
        (" 3 min ", 180_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
    ],
)
def test_durations_have_a_unit_or_are_milliseconds(text: str, milliseconds: float) -> None:
    assert parse_duration_ms(text, "--every") == milliseconds


@pytest.mark.parametrize("text", ["", "0ms x", "ms", "-1s", "1e3s", "infs", "nans", "1 s 2 ms", "1d"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a duration") as raised:
        parse_duration_ms(text, "--every")
    assert "for --every" in raised.value.format_message()


@pytest.mark.parametrize("text", ["0", "0ms", "0.0s"])
def test_a_duration_of_nothing_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="longer than 0"):
        parse_duration_ms(text, "--every")
