"""What is needed now is loaded at once; what might be needed waits for idle moments and free memory."""

import errno
import os
from pathlib import Path

from splitplace.edge_node import loader
from splitplace.messages.application import Application
from splitplace.policies import cost
from tests.edge_node.jobs import make_job
from tests.edge_node.loading import FRAGMENT_BYTES, bench
from tests.support.waiting import until

BIG = 1_000_000_000.0


async def test_what_a_task_needs_is_brought_at_once_and_beside_each_other(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.fetch_s = 0.05
        for fragment in made.fragments("layer"):
            made.loader.want(fragment)
        await until(lambda: set(made.loader.loaded) == set(made.fragments("layer")))
    assert made.most_at_once == 3


async def test_what_might_be_needed_is_brought_one_after_the_other(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.fetch_s = 0.02
        wanted = made.fragments("layer") + made.fragments("semantic")
        made.loader.want_when_idle(wanted[:3])
        made.loader.want_when_idle(wanted[3:])
        await until(lambda: set(made.loader.loaded) == set(wanted))
    assert made.fetched == made.files(*wanted)
    assert made.most_at_once == 1


async def test_what_might_be_needed_waits_while_there_is_something_to_compute(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        (whole,) = made.fragments("whole")
        made.executor.push(make_job(task="c.t", fragment=whole, ends_ms=BIG))
        made.loader.want_when_idle(made.fragments("layer"))
        made.loader.want(whole)
        await until(lambda: made.loader.loaded == (whole,))
        made.loader.something_changed()
        needed = made.fragments("semantic")[0]
        made.loader.want(needed)
        await until(lambda: made.loader.loaded == (whole, needed))
        assert made.fetched == made.files(whole, needed)
        made.executor.cancel("c.t", 1)
        made.loader.something_changed()
        await until(lambda: len(made.loader.loaded) == 5)


async def test_what_might_be_needed_drives_nothing_out(tmp_path: Path) -> None:
    async with bench(tmp_path, budget_bytes=4 * FRAGMENT_BYTES) as made:
        (whole,) = made.fragments("whole")
        made.loader.want(whole)
        await until(lambda: made.loader.loaded == (whole,))
        made.loader.want_when_idle(made.fragments("layer"))
        await until(lambda: len(made.loader.loaded) == 2)
        await until(lambda: made.loader._idle_task is None)  # it has considered all
        assert made.loader.loaded == (whole, made.fragments("layer")[0])
        assert made.loader.loaded_bytes == 4 * FRAGMENT_BYTES
    assert not made.failures


async def test_what_a_task_needs_does_not_wait_behind_what_is_fetched_for_later(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        later, *needed = made.fragments("layer")
        made.held.clear()
        made.loader.want_when_idle([later])
        await until(lambda: made.fetching == 1)
        for fragment in needed:
            made.loader.want(fragment)
        await until(lambda: made.fetching == 2)
        assert {load.fragment for load in made.loader.loads} == set(needed)
        made.held.set()
        await until(lambda: set(made.loader.loaded) == {later, *needed})
        assert made.fetched[-1:] == made.files(later)
    assert not made.failures


async def test_what_is_fetched_for_later_goes_on_at_once_where_a_task_needs_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        first, second, _ = made.fragments("layer")
        made.held.clear()
        made.loader.want_when_idle([first])
        await until(lambda: made.fetching == 1)
        made.loader.want(first)
        made.loader.want(second)
        await until(lambda: made.fetching == 2)
        assert {load.fragment for load in made.loader.loads} == {first, second}
        made.held.set()
        await until(lambda: set(made.loader.loaded) == {first, second})
        made.loader.want_when_idle([made.fragments("whole")[0]])
        made.loader.want(made.fragments("layer")[2])
        await until(lambda: len(made.loader.loaded) == 4)
    assert not made.failures


async def test_what_was_put_off_and_is_needed_a_moment_later_is_loaded(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        first, second, _ = made.fragments("layer")
        made.held.clear()
        made.loader.want_when_idle([first])
        await until(lambda: made.fetching == 1)
        made.loader.want(second)
        made.loader.want(first)
        made.held.set()
        await until(lambda: set(made.loader.loaded) == {first, second})
    assert not made.failures


async def test_how_long_loading_takes_is_told_without_the_time_of_fetching(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        before_ms = made.loader.load_ms
        assert before_ms is None
        made.fetch_s = 3.0
        made.loader.want_when_idle(made.fragments("whole"))
        await until(lambda: made.loader.loaded)
        took_ms = made.loader.load_ms
        assert took_ms is not None
        assert 0 < took_ms < 3000


async def test_a_load_tells_how_long_it_will_take_by_the_link_that_was_measured(tmp_path: Path) -> None:
    async with bench(tmp_path, link=1e-6) as made:
        (whole,) = made.fragments("whole")
        made.held.clear()
        made.loader.want(whole)
        (load,) = made.loader.loads
        expected_ms = 1000.0 * made.application.fragment(whole).file_bytes + cost.FETCH_MS
        assert load.left_ms is not None
        assert 0.9 * expected_ms < load.left_ms <= expected_ms
        made.held.set()
        await until(lambda: made.loader.loaded == (whole,))
        assert made.loader.loads == ()


async def test_a_fragment_that_is_put_aside_is_refused_and_not_loaded_in_idle_moments(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        aside, other, *_ = made.fragments("layer")
        made.quarantine.blame(aside, "it ran for 30 s")
        made.loader.want(aside)
        await until(lambda: made.failures == [(aside, "fragment")])
        made.loader.want_when_idle([aside, other])
        await until(lambda: made.loader.loaded == (other,))
        assert made.fetched == made.files(other)


async def test_while_the_disk_refuses_nothing_more_is_fetched(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        first, second, third = made.fragments("layer")
        made.disk_error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        made.loader.want(first)
        await until(lambda: made.failures == [(first, "fragment")])
        made.disk_error = None
        made.loader.want(second)
        await until(lambda: made.failures == [(first, "fragment"), (second, "fragment")])
        assert made.fetched == []
        assert made.loader.load_ms == loader.CANNOT_LOAD_MS
        made.loader.want_when_idle([third])
        await until(lambda: made.loader._idle_task is None)
        assert len(made.failures) == 2
        made.store.trouble = ""
        made.loader.want(third)
        await until(lambda: made.loader.loaded == (third,))


async def test_variants_that_share_pieces_fetch_them_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        (whole,), layers = made.fragments("whole"), made.fragments("layer")
        made.loader.want(layers[1])
        await until(lambda: made.loader.loaded)
        assert made.fetched == made.files(layers[1])
        made.loader.want(whole)
        await until(lambda: set(made.loader.loaded) == {layers[1], whole})
        assert sorted(made.fetched) == sorted(made.files(whole)), "each file once"
        for layer in layers:
            made.loader.want(layer)
        await until(lambda: len(made.loader.loaded) == 4)
        assert sorted(made.fetched) == sorted(made.files(whole))
    assert not made.failures


async def test_pieces_that_do_not_fit_together_are_not_loaded(tmp_path: Path) -> None:
    """The manifest promises a tensor that no piece makes."""
    async with bench(tmp_path) as made:
        made.loader.add_application(with_another_output(made.application))
        (wrong,) = (stage.fragment for stage in with_another_output(made.application).variants[0].stages)
        made.loader.want(wrong)
        await until(lambda: made.failures == [(wrong, "fragment")])
        assert made.loader.loaded == ()
        assert made.loader.loaded_bytes == 0


def with_another_output(application: Application) -> Application:
    """The whole network alone; its last bundle has a name that its last piece does not make."""
    described = application.chain("whole").chain
    output = (described.bundles[-1][0].model_copy(update={"name": "promised"}),)
    chain = described.model_copy(update={"bundles": (*described.bundles[:-1], output)})
    fragment = application.fragments[0].model_copy(update={"sha256": chain.stage(0, 3).sha256})
    variant = application.variant("whole")
    stage = variant.stages[0].model_copy(update={"fragment": fragment.sha256})
    return application.model_copy(
        update={
            "name": "wrong",
            "chains": (application.chain("whole").model_copy(update={"chain": chain}),),
            "fragments": (fragment,),
            "variants": (variant.model_copy(update={"stages": (stage,)}),),
        }
    )


async def test_what_is_to_be_loaded_ahead_takes_the_room_of_what_gives_way(tmp_path: Path) -> None:
    async with bench(tmp_path, budget_bytes=4 * FRAGMENT_BYTES) as made:
        (whole,) = made.fragments("whole")
        layers = made.fragments("layer")
        made.loader.want(whole)
        await until(lambda: made.loader.loaded == (whole,))
        made.loader.want_when_idle(layers, gives_way=[whole])
        await until(lambda: set(made.loader.loaded) == set(layers))
        assert not made.executor.has_session(whole)
        made.loader.want(whole)  # it can be loaded again
        await until(lambda: whole in made.loader.loaded)
    assert not made.failures


async def test_what_a_task_uses_gives_no_way(tmp_path: Path) -> None:
    async with bench(tmp_path, budget_bytes=4 * FRAGMENT_BYTES) as made:
        (whole,) = made.fragments("whole")
        first, second, _ = made.fragments("layer")
        made.loader.want(whole)
        await until(lambda: made.loader.loaded == (whole,))
        made.executor.push(make_job(task="c.t", fragment=whole, ends_ms=BIG))
        made.loader.want_when_idle([first, second], gives_way=[whole])
        made.loader.want(whole)
        made.executor.cancel("c.t", 1)
        made.loader.something_changed()
        await until(lambda: first in made.loader.loaded)
        await until(lambda: made.loader._idle_task is None)  # it has considered all
        assert set(made.loader.loaded) == {whole, first}
    assert not made.failures


async def test_what_gives_way_is_not_loaded_ahead_any_more(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        first, second, _ = made.fragments("layer")
        made.loader.want_when_idle([first, second])
        made.loader.want_when_idle([], gives_way=[first])
        await until(lambda: made.loader._idle_task is None)  # it has considered all
        assert made.loader.loaded == (second,)
    assert not made.failures
