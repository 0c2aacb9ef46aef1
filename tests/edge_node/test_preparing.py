"""Fragments with large weights are prepared once, measured, and mapped from then on."""

import signal
import sys
from pathlib import Path

import pytest

from splitplace.edge_node import opening
from splitplace.edge_node.stage.child import OUT_OF_MEMORY
from splitplace.messages.limits import MEBIBYTE
from splitplace.policies import memory
from splitplace.policies.memory import activation_bytes, preparing_bytes
from tests.edge_node.jobs import make_job
from tests.edge_node.loading import Bench, bench
from tests.support.waiting import until

LARGE = 2 * MEBIBYTE
BUDGET = 64 * MEBIBYTE
BIG = 1_000_000_000.0
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _small_weights_count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PREPARED_FROM_BYTES", MEBIBYTE)


def python(program: str) -> tuple[str, ...]:
    """A child that does something else than preparing."""
    return (sys.executable, "-c", program)


KILLED = python(f"import os; os.kill(os.getpid(), {signal.SIGKILL})")


async def load(made: Bench, fragment: str) -> None:
    made.loader.want(fragment)
    await until(lambda: fragment in made.loader.loaded or made.failures, PATIENCE_S)
    assert made.failures == []


def prepared(made: Bench) -> dict[str, int]:
    """What the node says of its prepared fragments: their private memory."""
    return {each.fragment: each.private_bytes for each in made.forms.report(made.catalogue)}


async def test_a_fragment_is_prepared_at_first_and_mapped_the_next_time_without_its_files(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET) as made:
        (whole,) = made.fragments("whole")
        await load(made, whole)
        assert (made.loader.load_ms is None, made.loader.map_ms is None) == (False, True)
        assert made.loader.loaded_bytes == prepared(made)[whole]
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET) as again:
        for path in again.store.folder.iterdir():
            path.unlink()
        await load(again, whole)
        assert (again.loader.load_ms is None, again.loader.map_ms is None) == (True, False)
        assert again.fetched == []


async def test_a_further_run_of_a_prepared_fragment_takes_what_was_measured(tmp_path: Path) -> None:
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET) as made:
        (whole,) = made.fragments("whole")
        assert made.loader.activation_bytes("0" * 64) is None
        described = made.application.fragment(whole)
        assert made.loader.activation_bytes(whole) == activation_bytes(described)
        await load(made, whole)
        measured = made.loader.activation_bytes(whole)
        assert measured is not None
        assert 0 < measured < prepared(made)[whole]


async def test_small_weights_are_loaded_as_they_are(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        (whole,) = made.fragments("whole")
        await load(made, whole)
        assert prepared(made) == {}
        assert made.disk.forms.made() == ()


async def test_preparing_takes_memory_of_its_own_that_is_given_back_before_the_fragment_is_mapped(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET) as made:
        (whole,) = made.fragments("whole")
        needed = preparing_bytes(made.application.fragment(whole))
        made.loader.want(whole)
        await until(made.loader.preparing, PATIENCE_S)
        assert made.loader.loaded_bytes == needed
        assert made.loader.loaded == ()
        assert [load.fragment for load in made.loader.loads] == [whole]
        await until(lambda: made.loader.loaded == (whole,), PATIENCE_S)
        assert made.loader.loaded_bytes == prepared(made)[whole]


async def test_fragments_are_prepared_one_after_the_other_and_idle_ones_make_room(tmp_path: Path) -> None:
    only_one = 11 * MEBIBYTE
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=only_one) as made:
        layers = made.fragments("layer")
        for fragment in layers:
            made.loader.want(fragment)
            await until(lambda: not made.loader.loading, PATIENCE_S)
            assert fragment in made.loader.loaded
            assert made.loader.loaded_bytes <= only_one
        assert made.failures == []
        assert set(prepared(made)) == set(layers)
        assert len(made.loader.loaded) < len(layers)


async def test_what_cannot_be_prepared_within_the_budget_is_not_fetched(tmp_path: Path) -> None:
    async with bench(tmp_path, weight_bytes=BUDGET, budget_bytes=BUDGET) as made:
        (whole,) = made.fragments("whole")
        made.loader.want(whole)
        await until(lambda: made.failures == [(whole, "memory")])
        assert made.fetched == []


async def test_a_child_that_lacks_memory_gets_more_while_the_budget_has_some(tmp_path: Path) -> None:
    short = python(
        f"import sys\nif int(sys.argv[2]) < {BUDGET}: sys.exit({OUT_OF_MEMORY})\n"
        "from splitplace.edge_node.stage.prepare import main\nmain()"
    )
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET, prepare=short) as made:
        await load(made, made.fragments("whole")[0])


async def test_where_the_budget_does_not_hold_laid_out_weights_they_are_left_as_they_are(
    tmp_path: Path,
) -> None:
    only_plain = python(
        f"import sys\nif sys.argv[-1] == 'packed': sys.exit({OUT_OF_MEMORY})\n"
        "from splitplace.edge_node.stage.prepare import main\nmain()"
    )
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET, prepare=only_plain) as made:
        (whole,) = made.fragments("whole")
        await load(made, whole)
        (key,) = made.disk.forms.made()
        about = made.disk.forms.about(key)
        assert about is not None
        assert not about.packed


async def test_a_fragment_that_the_whole_budget_does_not_suffice_for_fails_for_memory(tmp_path: Path) -> None:
    never = python(f"raise SystemExit({OUT_OF_MEMORY})")
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET, prepare=never) as made:
        (whole,) = made.fragments("whole")
        made.loader.want(whole)
        await until(lambda: made.failures == [(whole, "memory")], PATIENCE_S)
        assert made.loader.loaded_bytes == 0


async def test_a_fragment_whose_preparation_is_killed_twice_is_put_aside(tmp_path: Path) -> None:
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET, prepare=KILLED) as made:
        (whole,) = made.fragments("whole")
        made.loader.want(whole)
        await until(lambda: made.failures == [(whole, "fragment")], PATIENCE_S)
        assert made.quarantine.refusal(whole) is None
        made.loader.want(whole)
        await until(lambda: made.failures == [(whole, "fragment")] * 2, PATIENCE_S)
        assert made.quarantine.refused() == (whole,)
        assert made.disk.forms.made() == ()
        assert made.loader.loaded_bytes == 0


async def test_a_preparation_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    endless = python("import threading; threading.Event().wait()")
    async with bench(
        tmp_path,
        weight_bytes=LARGE,
        budget_bytes=BUDGET,
        prepare=endless,
        timeout_s=0.2,
    ) as made:
        (whole,) = made.fragments("whole")
        made.loader.want(whole)
        await until(lambda: made.failures == [(whole, "fragment")], PATIENCE_S)
        assert made.loader.preparing() == ()


async def test_a_form_without_room_on_the_disk_is_a_clear_failure(tmp_path: Path) -> None:
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=BUDGET, disk_bytes=2000) as made:
        (whole,) = made.fragments("whole")
        made.loader.want(whole)
        await until(lambda: made.failures == [(whole, "fragment")], PATIENCE_S)
        assert made.disk.forms.made() == ()


async def test_loaded_forms_stay_on_the_disk_until_they_are_unloaded(tmp_path: Path) -> None:
    only_one = 11 * MEBIBYTE
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=only_one) as made:
        first, second, _ = made.fragments("layer")
        await load(made, first)
        assert made.disk.forms.free(1 << 40) == 0
        await load(made, second)
        assert made.loader.loaded == (second,)
        assert made.disk.forms.free(1 << 40) > 0
        assert set(prepared(made)) == {second}


async def test_what_may_be_needed_later_is_prepared_only_if_nothing_must_go_for_it(tmp_path: Path) -> None:
    only_one = 11 * MEBIBYTE
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=only_one) as made:
        first, second, third = made.fragments("layer")
        await load(made, first)
        await load(made, second)
        assert made.loader.loaded == (second,)
        made.loader.want_when_idle([third, first])
        await until(lambda: made.loader.loaded == (second, first), PATIENCE_S)
        assert set(prepared(made)) == {first, second}


async def test_a_preparation_waits_for_busy_fragments_and_gives_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MEMORY_PATIENCE_S", 0.2)
    async with bench(tmp_path, weight_bytes=LARGE, budget_bytes=11 * MEBIBYTE) as made:
        first, second, _ = made.fragments("layer")
        await load(made, first)
        made.executor.push(make_job(task="c.t", fragment=first, ends_ms=BIG))
        made.loader.want(second)
        await until(lambda: made.failures == [(second, "memory")], PATIENCE_S)
        assert made.loader.loaded == (first,)
