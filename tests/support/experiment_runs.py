"""Runs with made-up figures, for tests of what is said about them."""

from collections.abc import Mapping, Sequence

from splitplace.experiments.figures import Run, Runs


def runs_of(values: Mapping[tuple[str, str], Mapping[str, Sequence[float]]]) -> Runs:
    """Runs whose figures are given as lists by seed, for each case and policy."""
    return Runs(
        {
            cell: {
                seed: Run({name: numbers[seed] for name, numbers in figures.items()})
                for seed in range(len(next(iter(figures.values()))))
            }
            for cell, figures in values.items()
        }
    )


def rewards(**policies: Sequence[float]) -> Runs:
    """Runs of one case in which only the reward matters."""
    return runs_of({("base", name): {"reward": numbers} for name, numbers in policies.items()})
