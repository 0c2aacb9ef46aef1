"""The command that makes the shipped weights, on simulations of a few tasks."""

import json
import re
from pathlib import Path

import pytest

from splitplace.policies.placement.surrogate import SHAPES
from splitplace.policies.placement.weights import weights_of
from splitplace.simulator import train_surrogate


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = ({"rate": 3, "hosts": 12, "arms": ("layer", "semantic")}, {"rate": 4, "hosts": 16})
    monkeypatch.setattr(train_surrogate, "CONDITIONS", conditions)


@pytest.mark.usefixtures("small")
def test_it_writes_weights_that_repeat_by_seed_and_prints_how_well_they_foresee(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
        train_surrogate.main(["--intervals", "12", "--steps", "20", "--out", str(tmp_path / name)])
    for name in ("gobi.json", "daso.json"):
        once, twice = ((tmp_path / folder / name).read_text() for folder in ("once", "twice"))
        assert once == twice
        assert weights_of(json.loads(once)).keys() == SHAPES.keys()
    assert (tmp_path / "once" / "gobi.json").read_text() != (tmp_path / "once" / "daso.json").read_text()
    printed = capsys.readouterr().out
    assert re.search(r"daso, placements of one state: -?[01]\.[0-9]{3}", printed.split("held out:")[1])


@pytest.mark.usefixtures("small")
def test_a_check_tests_the_shipped_weights_and_what_could_be_foreseen_at_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_surrogate.main(["--check", "--intervals", "12", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
    printed = capsys.readouterr().out.split("held out:")[1]
    assert re.search(r"daso, tried: [1-9][0-9]* placements, error", printed)
    best = re.search(r"playing out, happened: [1-9][0-9]* placements, Spearman (-?[01]\.[0-9]{3})", printed)
    assert best is not None
    assert float(best[1]) > 0.5


@pytest.mark.usefixtures("small")
def test_placements_of_one_state_stand_together_and_differ() -> None:
    seen = train_surrogate.collect(4, "test", {})
    states = [sample.state for sample in seen.tried["daso"]]
    assert states == [sample.state for sample in seen.tried["gobi"]]
    changes = sum(one != before for one, before in zip(states[1:], states, strict=False)) + 1
    assert changes == len(set(states)) > 1
    assert max(states.count(state) for state in set(states)) > 2
    happened = [sample.state for sample in seen.happened["daso"]]
    assert len(set(happened)) == len(happened)
