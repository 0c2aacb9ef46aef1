"""Commands that run inside a test: a new interpreter for each would take most of the time."""

import pytest

from splitplace.commands.main import main


def exit_code(*words: object) -> int:
    """Run a `splitplace` command to its end, and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def measure_quickly(patch: pytest.MonkeyPatch) -> None:
    """Have the workshop time networks and this machine only briefly, where no test is about the times."""
    patch.setattr("splitplace.workshop.cutting.profile.ROUNDS", 2)
    patch.setattr("splitplace.workshop.cutting.profile.SCORE_S", 0.05)
    patch.setattr("splitplace.workshop.pieces.times.ROUNDS", 2)
