"""The comparison of semantic splits: what it trains, what it counts and what it prints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from splitplace.messages.application import Fragment
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.cutting import profile
from splitplace.workshop.networks.designs import ResNet
from splitplace.workshop.recipes.comparison import METHODS, Trial, compare, main, shortened
from splitplace.workshop.recipes.comparison_table import Row, table
from splitplace.workshop.recipes.recipes import RECIPES
from splitplace.workshop.training.loop import TrainingSchedule
from tests.support.small_networks import easy_subset


def fragment(milliseconds: float, flops: float) -> Fragment:
    return Fragment(
        sha256="0" * 64,
        file_bytes=1,
        weight_bytes=2000,
        peak_memory_bytes=5000,
        flops_per_image=flops,
        milliseconds_per_image=milliseconds,
        milliseconds_per_call=1.6,
        input=TensorSpec(dtype="uint8", shape=(1, 28, 28)),
        output=TensorSpec(dtype="float32", shape=(10,)),
    )


def printed(*rows: Row) -> str:
    console = Console(width=150)
    with console.capture() as capture:
        console.print(table(rows, "title"))
    return capture.get()


def test_the_slowest_branch_counts_and_is_compared_to_the_whole() -> None:
    whole = Row("whole", 1, 0.9, 0.0, (fragment(0.9, 10e6),))
    split = Row("similar", 2, 0.8, 0.1, (fragment(0.4, 2e6), fragment(0.5, 4e6)))
    assert whole.ms == pytest.approx(1.0)
    assert split.ms == pytest.approx(0.6)
    line = printed(whole, split).splitlines()[-1].split()
    assert line == ["similar", "0.8000", "0.1000", "4.0", "40%", "2", "5", "0.600", "60%", "65%"]


def test_a_shortened_schedule_grows_the_pictures_alike_and_ends_at_their_own_side() -> None:
    schedule = TrainingSchedule(epochs=12, sides=(*(16,) * 3, *(20,) * 3, *(24,) * 2, *(28,) * 4))
    assert shortened(schedule, 3) == replace(schedule, epochs=3, sides=(16, 20, 28))
    assert shortened(schedule, 1).sides == (28,)
    assert shortened(TrainingSchedule(epochs=9), 2) == TrainingSchedule(epochs=2)


def test_every_method_is_trained_and_measured_beside_the_whole_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "ROUNDS", 1)
    recipe = replace(
        RECIPES["mnist"],
        design=ResNet((16, 16, 16), (1, 1, 1), "halving"),
        branch_design=ResNet((8, 8, 8), (1, 1, 1), "halving"),
    )
    with Progress(disable=True) as progress:
        trial = Trial(
            recipe=recipe,
            schedule=TrainingSchedule(epochs=1, batch=50),
            training=easy_subset(100),
            validation=easy_subset(50, seed=1),
            checkpoints=tmp_path,
            progress=progress,
        )
        rows = compare(trial)
    assert [row.name for row in rows] == ["whole", *(method.name for method in METHODS)]
    assert [row.branches for row in rows] == [1] + [3] * len(METHODS)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(row.fragments) == row.branches
        assert row.wrong_branch <= 1 - row.accuracy + 1e-9
    assert len(list(tmp_path.glob("*-100.pt"))) == len(rows)
    assert np.argmax([row.fragments[0].flops_per_image for row in rows]) == 0


def test_a_folder_without_the_data_is_an_error_with_what_is_expected_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--application", "mnist", "--data", str(tmp_path)]) == 1
    assert "mnist.npz" in capsys.readouterr().out
