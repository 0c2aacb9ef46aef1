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
from splitplace.messages.limits import MAX_TENSOR_BYTES
from splitplace.messages.pieces import PieceRun
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
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


def test_a_stage_may_begin_where_several_tensors_cross() -> None:
    app = free_application(PIECES, wide=[2])
    named = free_chain(app, app.variant("layer"))
    assert named is not None
    assert cut_places(app, named) == (1, 2, 3, 4, 5)
    first, last = grouped(app, app.variant("layer"), [2]).fragments.values()
    assert first.outputs == last.inputs == named.chain.bundles[2]
    assert first.output_bytes_per_image == last.input_bytes_per_image == 80
    assert (first.inputs, last.outputs) == ((), ())


def test_no_stage_begins_where_a_micro_batch_is_too_large_to_be_sent() -> None:
    floats = MAX_TENSOR_BYTES // 4 // 16
    app = free_application(3, crossing=[floats, floats // 2], wide=[2], micro_batch=16)
    named = free_chain(app, app.variant("layer"))
    assert named is not None
    assert cut_places(app, named) == (1, 2)
    app = free_application(3, crossing=[floats, floats // 2 + 1], wide=[2], micro_batch=16)
    named = free_chain(app, app.variant("layer"))
    assert named is not None
    assert cut_places(app, named) == (1,)


def test_only_the_pieces_of_a_chain_can_be_grouped_anew() -> None:
    app = three_ways()
    layer = app.variant("layer").model_copy(update={"most_stages": 3})
    with pytest.raises(ValidationError, match="can be grouped anew"):
        Application.model_validate(dict(app, variants=(app.variant("whole"), layer)))


def test_what_a_run_costs_is_the_sum_over_its_pieces() -> None:
    application = free_application(9, image_ms=[0.1 * place for place in range(1, 10)])
    (named,) = application.chains
    for first in range(9):
        for end, totals in enumerate(named.totals_from(first), first + 1):
            costs, pieces = named.costs[first:end], named.chain.pieces[first:end]
            files = {file.sha256: file.file_bytes for piece in pieces for file in piece.files}
            assert totals.file_bytes == sum(files.values())
            assert totals.weight_bytes == sum(cost.weight_bytes for cost in costs)
            assert totals.activation_bytes_per_image == max(cost.activation_bytes_per_image for cost in costs)
            assert totals.flops_per_image == pytest.approx(sum(cost.flops_per_image for cost in costs))
            image_ms = sum(cost.milliseconds_per_image for cost in costs)
            assert totals.milliseconds_per_image == pytest.approx(image_ms)
            run = PieceRun(chain=named.name, first=first, end=end)
            assert derived_fragment(application, run) == derived_fragment(application, run, totals)
