"""People and programs are told the same."""

import io
import json

import pytest
from rich.console import Console

from nemesis.__main__ import main
from nemesis.checker import Finding, Verdict
from nemesis.report import as_json, show

FAILED = Verdict(
    findings=[Finding("lost", f"s.t{number}", "never answered\x1b]0;title\x07", 1.0) for number in range(9)],
    tasks=20,
    accepted=19,
    faults={"kill:kill": 3},
)


def shown(verdict: Verdict) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(verdict, ["disk faults are left out"], console)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_a_failed_run_shows_its_first_findings_and_their_number() -> None:
    text = shown(FAILED)
    assert "failed" in text
    assert "kill 3" in text
    assert "s.t4" in text
    assert "s.t5" not in text
    assert "4 more" in text
    assert "disk faults are left out" in text


def test_nothing_of_a_finding_reaches_the_terminal_as_a_control_sequence() -> None:
    assert "\x1b" not in shown(FAILED)


def test_a_passed_run_says_so() -> None:
    assert "passed" in shown(Verdict())


def test_the_json_holds_every_finding() -> None:
    document = json.loads(as_json(FAILED, {"seed": 1}))
    assert document["passed"] is False
    assert document["counts"]["lost"] == 9
    assert len(document["findings"]) == 9
    assert document["settings"] == {"seed": 1}


def test_the_schedule_of_a_seed_can_be_read_before_it_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--seed", "3", "--faults", "kill,poison", "--minutes", "1"]) == 0
    first = capsys.readouterr().out
    assert "kill" in first
    assert main(["--list", "--seed", "3", "--faults", "poison,kill", "--minutes", "1"]) == 0
    assert capsys.readouterr().out == first


def test_an_unknown_family_is_refused_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--faults", "earthquake"])
    assert "kill, stop, pause" in capsys.readouterr().err


def test_chosen_poisons_are_sent_and_unknown_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--faults", "poison", "--poisons", "png-bomb,empty", "--minutes", "1"]) == 0
    sent = {line.split()[3] for line in capsys.readouterr().out.splitlines()}
    assert sent == {"png-bomb", "empty"}
    with pytest.raises(SystemExit):
        main(["--poisons", "arsenic"])
    assert "png-bomb" in capsys.readouterr().err
