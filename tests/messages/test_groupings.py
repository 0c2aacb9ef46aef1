"""Stages that were chosen for a task: everybody derives the same fragments from a run of pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from splitplace.messages.application import INPUT, Application
from splitplace.messages.groupings import (
    GroupingError,
    as_placed,
    cut_places,
    derived_fragment,
    free_chain,
    grouped,
)
from splitplace.messages.pieces import PieceRun
from splitplace.messages.task import StagePlacement, TaskPlaced
from tests.support.examples import three_ways
from tests.support.free_stages import free_application

PIECES = 6


def placed(
    app: Application, runs: list[tuple[int, int]], variant: str = "layer", chain: str = "net"
) -> TaskPlaced:
    return TaskPlaced(
        task="c.t",
        attempt=1,
        application=app.name,
        variant=variant,
        batch=4,
        micro_batch=4,
        policy="earliest-finish",
        stages=tuple(
            StagePlacement(
                stage=f"{first}-{end - 1}",
                node=f"n{index}",
                work_ms=1.0,
                run=PieceRun(chain=chain, first=first, end=end),
            )
            for index, (first, end) in enumerate(runs)
        ),
        predicted_ms=1.0,
        reason="",
    )


@given(st.sets(st.integers(1, PIECES - 1)))
def test_every_grouping_covers_the_chain_and_its_stages_fit_each_other(cuts: set[int]) -> None:
    app = free_application(PIECES)
    found = grouped(app, app.variant("layer"), sorted(cuts))
    fragments = list(found.fragments.values())
    assert [fragment.first for fragment in fragments] == [0, *sorted(cuts)]
    assert all(before.output == after.input for before, after in pairwise(fragments))
    assert [stage.source for stage in found.variant.stages] == [INPUT, *list(found.fragments)[:-1]]
    assert sum(fragment.milliseconds_per_image for fragment in fragments) == pytest.approx(PIECES)
    assert found.variant.sinks[0].classes == app.variant("layer").sinks[0].classes


@given(st.sets(st.integers(1, PIECES - 1)))
def test_who_hears_of_a_placement_finds_the_stages_that_were_chosen(cuts: set[int]) -> None:
    app = free_application(PIECES)
    found = grouped(app, app.variant("layer"), sorted(cuts))
    runs = list(pairwise([0, *sorted(cuts), PIECES]))
    assert as_placed(app, placed(app, runs)) == found
    assert as_placed(app, placed(app, runs[::-1])).variant == found.variant


def test_a_run_that_the_manifest_describes_is_as_it_is_there() -> None:
    app = free_application(PIECES)
    half = app.fragment(app.variant("layer").stages[0].fragment)
    assert derived_fragment(app, PieceRun(chain="net", first=0, end=PIECES // 2)) is half
    derived = derived_fragment(app, PieceRun(chain="net", first=0, end=2))
    assert derived.sha256 == app.stage_of(derived).sha256
    assert derived.file_bytes == sum(file.file_bytes for file in app.files_of(derived))


def test_a_placement_without_runs_has_the_stages_of_the_manifest() -> None:
    app = free_application(PIECES)
    plain = placed(app, [(0, 3), (3, 6)])
    stages = tuple(stage.model_copy(update={"run": None}) for stage in plain.stages)
    found = as_placed(app, plain.model_copy(update={"stages": stages}))
    assert found.variant is app.variant("layer")
    assert not found.runs


@pytest.mark.parametrize(
    "runs", [[(0, 3)], [(1, 6)], [(0, 3), (2, 6)], [(0, 2), (3, 6)], [(0, 3), (3, 7)], [(0, 6), (0, 5)]]
)
def test_runs_that_do_not_cover_the_chain_are_refused(runs: list[tuple[int, int]]) -> None:
    app = free_application(PIECES)
    with pytest.raises(GroupingError):
        as_placed(app, placed(app, runs))


def test_fixed_stages_other_chains_and_too_many_stages_are_refused() -> None:
    app = free_application(PIECES, most_stages=2)
    with pytest.raises(GroupingError, match="whole"):
        as_placed(app, placed(app, [(0, 6)], variant="whole"))
    with pytest.raises(GroupingError):
        as_placed(app, placed(app, [(0, 6)], chain="other"))
    with pytest.raises(GroupingError, match="at most 2"):
        grouped(app, app.variant("layer"), [1, 2])
    with pytest.raises(GroupingError, match="fixed"):
        grouped(app, app.variant("whole"), [])
    with pytest.raises(GroupingError, match="no variant unknown"):
        as_placed(app, placed(app, [(0, 6)], variant="unknown"))


def test_stages_begin_only_where_one_tensor_crosses() -> None:
    app = free_application(PIECES, wide=[2])
    named = free_chain(app, app.variant("layer"))
    assert named is not None
    assert cut_places(named) == (1, 3, 4, 5)
    with pytest.raises(GroupingError, match="several tensors"):
        grouped(app, app.variant("layer"), [2])


def test_only_the_pieces_of_a_chain_can_be_grouped_anew() -> None:
    app = three_ways()
    layer = app.variant("layer").model_copy(update={"most_stages": 3})
    with pytest.raises(ValidationError, match="can be grouped anew"):
        Application.model_validate(dict(app, variants=(app.variant("whole"), layer)))
