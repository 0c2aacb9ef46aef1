from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import FragmentLoad
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
from splitplace.policies.cluster import MAX_OUTSTANDING, STALE_AFTER_MS, ClusterView
from splitplace.policies.cost import FETCH_MS
from splitplace.policies.stage_work import StageWork, stage_work
from tests.support.examples import cluster, fragment, node, sha, snapshot, three_ways

BIG = fragment("big", megabytes=60)
SMALL = fragment("small", megabytes=30)


def work(name: str, work_ms: float, piece: str = "big") -> StageWork:
    return StageWork(name, BIG if piece == "big" else SMALL, work_ms)


def test_nothing_is_known_before_the_first_snapshot() -> None:
    view = ClusterView()
    assert not view.known
    assert cluster().known
    assert not cluster().nodes


def test_an_idle_node_is_ready_now() -> None:
    assert cluster(node("a")).ready_ms("a", 500.0) == 500.0


def test_placed_work_queues_up_and_drains_with_time() -> None:
    view = cluster(node("a"))
    view.placed("c.1", 1, [work("a", 100)], 0.0)
    view.placed("c.2", 1, [work("a", 50)], 10.0)
    assert view.ready_ms("a", 10.0) == 150.0
    assert view.ready_ms("a", 140.0) == 150.0
    assert view.ready_ms("a", 200.0) == 200.0


def test_a_finished_task_leaves_only_what_is_outstanding() -> None:
    view = cluster(node("a"))
    view.placed("c.1", 1, [work("a", 100)], 0.0)
    view.placed("c.2", 1, [work("a", 50)], 0.0)
    view.finished("c.1", 20.0)  # faster than predicted
    assert view.ready_ms("a", 20.0) == 70.0
    view.finished("c.2", 30.0)
    assert view.ready_ms("a", 30.0) == 30.0
    assert view.outstanding == 0


def test_only_work_with_an_earlier_deadline_stands_ahead() -> None:
    view = cluster(node("a"))
    view.placed("c.relaxed", 1, [work("a", 100)], 0.0, due_ms=10_000)
    view.placed("c.tight", 1, [work("a", 10)], 0.0, due_ms=50)
    assert view.ready_ms("a", 0.0, due_ms=100) == 10.0
    assert view.ready_ms("a", 0.0, due_ms=20_000) == 110.0


def test_where_tasks_share_the_processor_work_with_a_later_deadline_is_not_overtaken() -> None:
    view = ClusterView(exclusive=["a"])
    view.apply(snapshot(node("a"), node("b")), 0.0)
    for name in ("a", "b"):
        view.placed(f"c.{name}", 1, [work(name, 100)], 0.0, due_ms=10_000)
    assert view.ready_ms("a", 0.0, due_ms=100) == 100.0
    assert view.ready_ms("b", 0.0, due_ms=100) == 0.0
    assert view.columns.ready_ms(0.0, 100).tolist() == [100.0, 0.0]
    view.finished("c.a", 10.0)
    assert view.ready_ms("a", 10.0, due_ms=100) == 10.0


def test_what_a_node_reports_beyond_the_ledger_comes_on_top() -> None:
    view = cluster(node("a", queue_ms=80))
    assert view.ready_ms("a", 0.0) == 80.0
    view.placed("c.1", 1, [work("a", 100)], 0.0)
    assert view.ready_ms("a", 0.0) == 180.0  # placed after the report
    view.apply(snapshot(node("a", queue_ms=100)), 50.0)
    assert view.ready_ms("a", 50.0) == 180.0  # the report explains part of the ledger, not more


def test_a_reported_queue_ages_with_the_heartbeat_it_came_in() -> None:
    view = cluster(node("a", queue_ms=80, silent_ms=60), now_ms=1000.0)
    assert view.ready_ms("a", 1000.0) == 1020.0


def test_a_queue_reported_before_the_node_ran_empty_is_not_believed() -> None:
    view = cluster(node("a"))
    view.placed("c.1", 1, [work("a", 500)], 0.0)
    view.finished("c.1", 100.0)
    view.apply(snapshot(node("a", queue_ms=400, silent_ms=50)), 120.0)
    assert view.ready_ms("a", 120.0) == 120.0
    view.apply(snapshot(node("a", queue_ms=400, silent_ms=0)), 130.0)
    assert view.ready_ms("a", 130.0) == 530.0


def test_a_provisional_placement_is_replaced_by_the_real_one() -> None:
    view = cluster(node("a"), node("b"))
    view.placed("c.0", 1, [work("a", 40)], 0.0)
    view.placed("c.1", 1, [work("a", 100)], 20.0)
    view.placed("c.1", 1, [work("b", 100)], 20.0)
    assert view.ready_ms("a", 20.0) == 40.0
    assert view.ready_ms("b", 20.0) == 120.0
    view.placed("c.1", 1, [], 20.0)  # no feasible placement after all
    assert view.ready_ms("b", 20.0) == 20.0
    assert view.outstanding == 1


def test_an_older_attempt_changes_nothing() -> None:
    view = cluster(node("a"), node("b"))
    view.placed("c.1", 2, [work("a", 100)], 0.0)
    view.placed("c.1", 1, [work("b", 100)], 0.0)
    assert view.ready_ms("a", 0.0) == 100.0
    assert view.ready_ms("b", 0.0) == 0.0


def test_dead_nodes_vanish_and_restarted_ones_have_nothing_to_do() -> None:
    view = cluster(node("a"), node("b"))
    view.placed("c.1", 1, [work("a", 100), work("b", 100)], 0.0)
    view.apply(snapshot(node("a", boot=1), node("b", online=False)), 10.0)
    assert list(view.nodes) == ["a"]
    assert view.ready_ms("a", 10.0) == 10.0
    with pytest.raises(KeyError):
        view.ready_ms("b", 10.0)
    view.finished("c.1", 20.0)
    assert view.free_bytes("a") == 100_000_000


def test_fragments_of_outstanding_tasks_are_reserved_once_and_idle_ones_can_be_evicted() -> None:
    view = cluster(node("a", megabytes=100, loaded=[sha("other")]))
    assert view.free_bytes("a") == 100_000_000
    view.placed("c.1", 1, [work("a", 10), work("a", 10, "small")], 0.0)
    view.placed("c.2", 1, [work("a", 10)], 0.0)
    assert view.free_bytes("a") == 10_000_000
    assert view.reserves("a", BIG.sha256)
    view.finished("c.1", 5.0)
    assert view.free_bytes("a") == 40_000_000
    assert not view.reserves("a", SMALL.sha256)
    view.finished("c.2", 5.0)
    assert view.free_bytes("a") == 100_000_000


def test_where_each_task_has_its_container_fragments_are_reserved_for_each() -> None:
    view = ClusterView(exclusive=["a"])
    view.apply(snapshot(node("a", megabytes=200, loaded=[BIG.sha256])), 0.0)
    view.placed("c.1", 1, [work("a", 10)], 0.0)
    view.placed("c.2", 1, [work("a", 10)], 0.0)
    assert view.free_bytes("a") == 80_000_000
    assert view.reserves("a", BIG.sha256)
    assert not view.shares("a", BIG.sha256)
    view.finished("c.1", 5.0)
    assert view.free_bytes("a") == 140_000_000
    view.finished("c.2", 5.0)
    assert view.free_bytes("a") == 200_000_000


def test_a_fragment_that_is_not_loaded_must_be_fetched_once() -> None:
    piece = fragment("fetched", file_bytes=2_000_000)
    view = cluster(node("a", link=100, loaded=[BIG.sha256]))
    assert view.fragment_ready_ms("a", BIG, 0.0) == 0.0
    assert view.fragment_ready_ms("a", piece, 0.0) == FETCH_MS + 20.0
    view.placed("c.1", 1, [StageWork("a", piece, 1.0)], 0.0)
    assert view.fragment_ready_ms("a", piece, 30.0) == FETCH_MS + 20.0  # on its way
    view.apply(snapshot(node("a", link=100, silent_ms=10)), 200.0)  # and yet it did not come
    assert view.fragment_ready_ms("a", piece, 200.0) == 200.0 + FETCH_MS + 20.0
    view.apply(snapshot(node("a", link=100, loaded=[piece.sha256])), 300.0)
    assert view.fragment_ready_ms("a", piece, 300.0) == 300.0


def test_a_node_that_has_seen_how_long_loading_takes_is_believed() -> None:
    piece = fragment("fetched", file_bytes=2_000_000)
    view = cluster(node("a", loaded=[BIG.sha256], load_ms=400.0), node("b"))
    assert view.fragment_ready_ms("a", piece, 10.0) == 10.0 + 400.0 + 20.0
    assert view.fragment_ready_ms("a", BIG, 10.0) == 10.0
    assert view.fragment_ready_ms("b", piece, 10.0) == 10.0 + FETCH_MS + 20.0


def test_only_missing_bytes_need_the_link_and_every_megabyte_its_time_to_load() -> None:
    piece = fragment("fetched", file_bytes=2_000_000)
    costs = {"load_ms": 30.0, "load_ms_per_megabyte": 5.0}
    missing = node("a", link=1.0).model_copy(update=costs)
    stored = node("b", link=1.0).model_copy(update={**costs, "stored": (piece.sha256,)})
    view = cluster(missing, stored)
    assert view.fragment_ready_ms("a", piece, 0.0) == 2000.0 + 40.0
    assert view.fragment_ready_ms("b", piece, 0.0) == 40.0
    assert view.columns.fragment_ready_ms(piece, 0.0).tolist() == [2040.0, 40.0]


def test_what_a_node_loads_already_is_ready_when_the_node_says() -> None:
    piece = fragment("fetched", file_bytes=2_000_000)
    load = FragmentLoad(fragment=piece.sha256, left_ms=300.0)
    view = cluster(node("a", silent_ms=50.0).model_copy(update={"loads": (load,)}), now_ms=1000.0)
    assert view.fragment_ready_ms("a", piece, 1000.0) == 1000.0 - 50.0 + 300.0
    assert view.fragment_ready_ms("a", piece, 2000.0) == 2000.0


def test_without_a_link_no_fragment_ever_comes() -> None:
    assert cluster(node("a", link=0)).fragment_ready_ms("a", fragment("x", file_bytes=1), 0.0) == inf


def test_placements_whose_end_is_never_reported_are_forgotten() -> None:
    view = cluster(node("a"))
    view.placed("c.lost", 1, [work("a", 100)], 0.0)
    view.apply(snapshot(node("a")), STALE_AFTER_MS)
    assert view.outstanding == 1
    view.apply(snapshot(node("a")), STALE_AFTER_MS + 101)
    assert view.outstanding == 0
    assert view.free_bytes("a") == 100_000_000


def test_placements_are_kept_while_their_tasks_may_end_and_do_not_hold_up_others() -> None:
    """A task without a deadline takes its memory until it ends, however late it is."""
    view = cluster(node("a"))
    view.placed("c.patient", 1, [work("a", 100)], 0.0, forget_ms=inf)
    view.placed("c.lost", 1, [work("a", 100)], 0.0)
    view.apply(snapshot(node("a")), STALE_AFTER_MS + 201)
    assert view.outstanding == 1
    view.placed("c.patient", 1, [work("a", 50)], STALE_AFTER_MS + 300)
    view.apply(snapshot(node("a")), 10 * STALE_AFTER_MS)
    assert view.outstanding == 1
    view.finished("c.patient", 10 * STALE_AFTER_MS)
    assert view.outstanding == 0


def test_the_ledger_is_bounded() -> None:
    view = cluster(node("a"))
    for index in range(MAX_OUTSTANDING + 5):
        view.placed(f"c.{index}", 1, [work("a", 0.001)], 0.0)
    assert view.outstanding == MAX_OUTSTANDING


def test_published_stages_become_work_with_their_fragments() -> None:
    app = three_ways()
    placed = TaskPlaced(
        task="c.t",
        attempt=1,
        application=app.name,
        variant="layer",
        batch=4,
        micro_batch=4,
        policy="random",
        stages=(
            StagePlacement(stage="layer-1", node="a", work_ms=7.0),
            StagePlacement(stage="unknown", node="a", work_ms=7.0),
        ),
        predicted_ms=1.0,
        reason="",
    )
    works = stage_work(app, placed)
    piece = app.fragment(app.variant("layer").stages[1].fragment)
    assert works == (StageWork("a", piece, 7.0, calls=1, input_bytes=4 * piece.input_bytes_per_image),)


@pytest.mark.parametrize(
    ("calls", "busy_ms"),
    [
        (1, 10 + 10 + 10 / 1.5 + 10 / 2 + 10 / 2),
        (4, 50),  # each has filled the cores by itself
        (None, 50),
    ],
)
def test_tasks_that_fill_the_cores_of_a_node_keep_it_for_less_time(calls: int | None, busy_ms: float) -> None:
    view = cluster(node("a", threads=4, together=2.0), node("b"))
    for number in range(5):
        for name in "ab":
            view.placed(f"{name}.{number}", 1, [StageWork(name, BIG, 10.0, calls)], 0.0)
    assert view.ready_ms("b", 0.0) == 50.0
    assert view.ready_ms("a", 0.0) == pytest.approx(busy_ms)
    assert list(view.columns.ready_ms(0.0)) == pytest.approx([busy_ms, 50.0])
    for number in range(5):
        view.finished(f"a.{number}", 1.0)
    assert view.ready_ms("a", 1.0) == 1.0


events = st.lists(
    st.tuples(
        st.sampled_from(["placed", "finished", "snapshot", "restart"]),
        st.integers(0, 5),
        st.integers(1, 3),
        st.floats(0, 200),
    ),
    max_size=40,
)


@given(events)
def test_after_any_story_an_empty_ledger_leaves_free_memory_and_idle_nodes(
    story: list[tuple[str, int, int, float]],
) -> None:
    view = cluster(node("a"), node("b"))
    now = 0.0
    for boot, (event, task, attempt, value) in enumerate(story):
        now += value / 10
        if event == "placed":
            works = [work("a", value), work("b", value, "small"), work("a", value, "small")]
            view.placed(f"c.{task}", attempt, works[: attempt + 1], now, due_ms=now + value)
        elif event == "finished":
            view.finished(f"c.{task}", now)
        else:
            view.apply(snapshot(node("a", boot=boot * (event == "restart")), node("b")), now)
        for name in "ab":
            assert view.ready_ms(name, now) >= now
            assert 0 <= view.free_bytes(name) <= 100_000_000
    for task in range(6):
        view.finished(f"c.{task}", now)
    assert view.outstanding == 0
    for name in "ab":
        assert view.ready_ms(name, now) == now
        assert view.free_bytes(name) == 100_000_000
