"""The comparison of SplitNet with our branches: what it trains, counts and prints."""

from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from splitplace.workshop.networks.designs import ResNet
from splitplace.workshop.recipes.splitnet_trial import RECIPE, Outcome, Trial, compare, main, table
from tests.support.small_networks import easy_subset


def test_all_methods_are_trained_on_the_same_images_and_split_the_same_classes(tmp_path: Path) -> None:
    recipe = replace(
        RECIPE,
        design=ResNet((8, 24), (1, 1), "halving"),
        branch_design=ResNet((8, 8), (1, 1), "halving"),
    )
    with Progress(disable=True) as progress:
        trial = Trial(recipe, 2, 0, easy_subset(60), easy_subset(40, seed=1), tmp_path, progress)
        outcomes = compare(trial)
    assert [outcome.method for outcome in outcomes] == [
        "whole",
        "SplitNet: its groups, its tree",
        "our groups, our branches",
        "SplitNet's groups, our branches",
        "groups by index, our branches",
    ]
    for outcome in outcomes:
        assert sorted(index for group in outcome.groups for index in group) == list(range(10))
        assert outcome.wrong_branch <= 1 - outcome.accuracy + 1e-9
    whole, tree, *branches = outcomes
    assert max(tree.megaflops, *(each.megaflops for each in branches)) < whole.megaflops
    assert branches[1].groups == tree.groups


def test_the_table_has_means_and_deviations_over_seeds() -> None:
    outcomes = [Outcome("whole", seed, ((0, 1),), 0.8 + seed / 10, 0.0, 29.04, 100.4) for seed in (0, 1)]
    assert table(outcomes).splitlines()[-1] == (
        "| whole | 0.850 ± 0.071 | 0.000 ± 0.000 | 29.0 | 100 | 0 1 |"
    )


def test_a_tree_needs_an_epoch_for_its_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--epochs", "1"])
    assert "expected at least 2" in capsys.readouterr().err


def test_a_folder_without_the_data_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "train-images-idx3-ubyte" in capsys.readouterr().out
