from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import NodeState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.prediction import StageSchedule
from splitplace.policies.stage_work import StageWork
from tests.support.examples import cluster, fragment, job, node, snapshot, three_ways

FRAGMENTS = [fragment(f"f{index}", megabytes=5 + index, file_bytes=100_000 * index) for index in range(4)]
APP = three_ways(image_ms=3, call_ms=0.2)


def assert_columns_say_what_the_nodes_say(view: ClusterView, now_ms: float) -> None:
    columns = view.columns
    assert columns.names == tuple(view.nodes)
    for due_ms in (50.0, 150.0, float("inf")):
        ready = columns.ready_ms(now_ms, due_ms)
        expected = [view.ready_ms(name, now_ms, due_ms=due_ms) for name in view.nodes]
        assert list(ready) == pytest.approx(expected)
    assert list(columns.link_free_ms) == [view.tracked(name).link.free_ms for name in view.nodes]
    assert list(columns.free_bytes()) == [view.free_bytes(name) for name in view.nodes]
    for piece in FRAGMENTS:
        ready = columns.fragment_ready_ms(piece, now_ms)
        assert list(ready) == [view.fragment_ready_ms(name, piece, now_ms) for name in view.nodes]
        loaded = [view.is_loaded(name, piece.sha256) for name in view.nodes]
        assert list(columns.loaded(piece.sha256)) == loaded
        assert columns.loaded_everywhere(piece.sha256) == all(loaded)
        assert list(columns.reserved(piece.sha256)) == [
            view.reserves(name, piece.sha256) for name in view.nodes
        ]
        assert list(columns.shared(piece.sha256)) == [view.shares(name, piece.sha256) for name in view.nodes]
    assert columns.load_ms(now_ms).sum() == pytest.approx(view.load_ms(now_ms) * len(view.nodes))
    piece_of_work = job(APP, "whole", 10)
    stage = piece_of_work.variant.stages[0]
    schedule = StageSchedule(view, piece_of_work, now_ms, now_ms)
    work = columns.work_ms(
        piece_of_work.fragments[stage.name], APP.reference_score, len(piece_of_work.micro_batches), 10
    )
    assert list(work) == pytest.approx([schedule.offer(stage, name).work_ms for name in view.nodes])


@given(seed=st.integers(0, 10_000))
def test_columns_follow_whatever_happens_to_the_cluster(seed: int) -> None:
    random = Random(seed)

    def states() -> list[NodeState]:
        whole = APP.variant("whole").stages[0].fragment
        return [
            node(
                f"n{index}",
                speed=random.choice([0, 1, 2]),
                queue_ms=random.choice([0, 0, 40]),
                loaded=[piece.sha256 for piece in random.sample(FRAGMENTS, random.randint(0, 3))],
                online=random.random() < 0.9,
                boot=random.choice([0, 0, 0, 1]),
                timings=[(whole, 2.5)] if random.random() < 0.5 else [],
                threads=random.choice([1, 4]),
                together=random.choice([1.0, 1.5]),
                link=random.choice([0, 100, 100]),
                load_ms=random.choice([None, 0.0, 300.0]),
            )
            for index in range(5)
        ]

    view = ClusterView(exclusive=["n1", "n3"])
    view.apply(snapshot(*states()), 0.0)
    now_ms = 0.0
    for _ in range(12):
        now_ms += random.choice([0, 1, 30])
        task = f"c.{random.randint(0, 4)}"
        happens = random.randint(0, 4)
        if happens == 0:
            view.apply(snapshot(*states()), now_ms)
        elif happens == 1:
            view.finished(task, now_ms)
        else:
            work = [
                StageWork(
                    f"n{random.randint(0, 4)}",
                    random.choice(FRAGMENTS),
                    random.uniform(1, 60),
                    input_bytes=random.choice([0.0, 1e6]),
                )
                for _ in range(random.randint(0, 4))
            ]
            view.placed(task, 1, work, now_ms, due_ms=random.choice([40, 100, 200]))
        assert_columns_say_what_the_nodes_say(view, now_ms)


def test_columns_hold_more_outstanding_tasks_than_they_began_with() -> None:
    view = cluster(node("a"), node("b"))
    assert view.columns.ready_ms(0.0).tolist() == [0.0, 0.0]
    for index in range(1000):
        view.placed(f"c.{index}", 1, [StageWork("ab"[index % 2], FRAGMENTS[0], 1.0)], 0.0, due_ms=index)
    assert view.columns.ready_ms(0.0).tolist() == pytest.approx([500.0, 500.0])
    assert view.columns.ready_ms(0.0, 99.0).tolist() == pytest.approx([50.0, 50.0])
    for index in range(1000):
        view.finished(f"c.{index}", 1.0)
    assert view.columns.ready_ms(1.0).tolist() == [1.0, 1.0]
