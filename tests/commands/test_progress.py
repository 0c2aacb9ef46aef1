"""Long work says how far it is, also where there is no terminal, and not too often."""

import pytest

from splitplace.commands.shared.progress import LinePacing, progress


def lines_of(total: int, step_s: float) -> list[str]:
    """What is printed where each piece takes the same time."""
    lines = LinePacing(total, began_s=100.0)
    said = [lines.step("fig9", 100.0 + step_s * (number + 1)) for number in range(total)]
    return [line for line in said if line is not None]


def test_a_line_says_what_is_done_and_how_long_the_rest_will_take() -> None:
    assert lines_of(total=40, step_s=10)[0] == "fig9: 2/40 (5%), 20 s, about 380 s to go"


def test_every_twentieth_gets_a_line() -> None:
    assert len(lines_of(total=1000, step_s=1)) == 20


def test_lines_are_never_closer_than_ten_seconds() -> None:
    said = lines_of(total=100, step_s=1)
    assert [line.split()[1] for line in said] == [f"{done}/100" for done in range(10, 101, 10)]


def test_a_minute_is_the_longest_silence_while_work_gets_done() -> None:
    assert len(lines_of(total=1000, step_s=6)) == 100


def test_the_end_is_always_told() -> None:
    assert lines_of(total=4, step_s=0.1) == ["fig9: 4/4 (100%), 0 s, about 0 s to go"]


def test_without_a_terminal_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(1) as step:
        step("fig2")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "fig2: 1/1 (100%), 0 s, about 0 s to go\n"
