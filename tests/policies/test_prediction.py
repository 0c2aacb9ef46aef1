from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import ClusterState, FragmentTiming
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import FETCH_MS, HOP_MS, RETURN_HOPS
from splitplace.policies.prediction import Job, StageSchedule, predict
from splitplace.policies.stage_work import StageWork
from tests.support.examples import all_of, cluster, job, node, snapshot, three_ways

LOGITS_BYTES = 8
PIXELS_BYTES = 1000
FEATURES_BYTES = 2000


def test_one_image_on_one_node_by_hand() -> None:
    app = three_ways(image_ms=10, call_ms=2)
    view = cluster(node("a", speed=0.5, link=1.0, loaded=all_of(app)))  # 1 MB/s: 1000 bytes a ms
    prediction = predict(view, job(app, "whole", 1), {"whole-0": "a"}, 0.0)
    compute = (2 + 10) / 0.5
    assert prediction.work_ms == {"whole-0": compute}
    there, back = PIXELS_BYTES / 1000 + HOP_MS, LOGITS_BYTES / 1000 + RETURN_HOPS * HOP_MS
    assert prediction.response_ms == pytest.approx(there + compute + back)


def test_times_count_from_now_and_inputs_set_out_at_the_start() -> None:
    app = three_ways()
    view = cluster(node("a", loaded=all_of(app)))
    at_once = predict(view, job(app, "whole", 1), {"whole-0": "a"}, 100.0)
    later = predict(view, job(app, "whole", 1), {"whole-0": "a"}, 100.0, start_ms=107.0)
    assert later.response_ms == pytest.approx(at_once.response_ms + 7)


def test_a_nodes_own_measurement_replaces_the_scaled_time_per_image() -> None:
    app = three_ways(image_ms=10, call_ms=2)
    whole = app.variant("whole").stages[0].fragment
    view = cluster(node("a", loaded=all_of(app), timings=[(whole, 3.0)]))
    assert predict(view, job(app, "whole", 4), {"whole-0": "a"}, 0.0).work_ms == {"whole-0": 2 + 4 * 3}


def test_a_nodes_own_time_of_a_call_counts_too() -> None:
    app = three_ways(image_ms=10, call_ms=2)
    whole = app.variant("whole").stages[0].fragment
    timing = FragmentTiming(fragment=whole, milliseconds_per_image=3.0, milliseconds_per_call=1.5)
    view = cluster(node("a", loaded=all_of(app)).model_copy(update={"timings": (timing,)}))
    assert predict(view, job(app, "whole", 4), {"whole-0": "a"}, 0.0).work_ms == {"whole-0": 1.5 + 4 * 3}


def test_micro_batches_that_wait_together_run_at_once_where_that_is_faster() -> None:
    app = three_ways(image_ms=10, micro_batch=1)
    own = FragmentTiming(
        fragment=app.variant("whole").stages[0].fragment, milliseconds_per_image=10.0, together=1.25
    )
    four = node("a", loaded=all_of(app), threads=4, together=1.5)
    for state, gain in [(four, 1.5), (four.model_copy(update={"timings": (own,)}), 1.25)]:
        view = cluster(state)
        work = [
            predict(view, job(app, "whole", batch), {"whole-0": "a"}, 0.0).work_ms["whole-0"]
            for batch in (1, 8)
        ]
        assert work == pytest.approx([10, 80 / gain])


def test_the_last_micro_batch_may_be_smaller() -> None:
    assert job(three_ways(micro_batch=4), "layer", 10).micro_batches == (4, 4, 2)
    assert job(three_ways(micro_batch=4), "layer", 3).micro_batches == (3,)


def test_a_chain_over_nodes_runs_as_a_pipeline_and_on_one_node_does_not() -> None:
    app = three_ways(image_ms=30, micro_batch=1)  # 10 ms a stage and image
    view = cluster(*(node(name, link=1e9, loaded=all_of(app)) for name in "abc"))
    spread = predict(view, job(app, "layer", 8), {"layer-0": "a", "layer-1": "b", "layer-2": "c"}, 0.0)
    single = predict(view, job(app, "layer", 8), dict.fromkeys(("layer-0", "layer-1", "layer-2"), "a"), 0.0)
    hops = RETURN_HOPS * HOP_MS
    assert spread.response_ms == pytest.approx((8 + 2) * 10 + 3 * HOP_MS + hops, abs=1e-3)
    assert single.response_ms == pytest.approx(8 * 30 + HOP_MS + hops, abs=1e-3)


def test_branches_run_side_by_side_and_the_last_counts() -> None:
    app = three_ways(image_ms=50)  # 10 ms a branch and image
    view = cluster(
        *(node(name, speed=speed, link=1e9, loaded=all_of(app)) for name, speed in (("a", 1), ("b", 0.5)))
    )
    apart = predict(view, job(app, "semantic", 1), {"semantic-0": "a", "semantic-1": "b"}, 0.0)
    together = predict(view, job(app, "semantic", 1), {"semantic-0": "a", "semantic-1": "a"}, 0.0)
    hops = (1 + RETURN_HOPS) * HOP_MS
    assert apart.response_ms == pytest.approx(20 + hops, abs=1e-3)
    assert together.response_ms == pytest.approx(10 + 10 + hops, abs=1e-3)


def test_a_slow_link_becomes_the_bottleneck_of_a_pipeline() -> None:
    app = three_ways(image_ms=0.3, micro_batch=1)  # .1 ms a stage, 2 ms to move its features over 1 MB/s
    view = cluster(node("a", link=1.0, loaded=all_of(app)), node("b", link=1e9, loaded=all_of(app)))
    nodes = {"layer-0": "b", "layer-1": "a", "layer-2": "b"}
    prediction = predict(view, job(app, "layer", 100), nodes, 0.0)
    assert prediction.response_ms == pytest.approx(100 * FEATURES_BYTES / 1000, rel=0.1)


def test_each_direction_of_a_link_has_its_own_speed() -> None:
    app = three_ways(image_ms=0.0, micro_batch=1)
    view = cluster(
        node("a", link=1e9, up=1.0, loaded=all_of(app)), node("b", link=1e9, up=1e9, loaded=all_of(app))
    )
    outwards = predict(view, job(app, "layer", 100), {"layer-0": "a", "layer-1": "b", "layer-2": "b"}, 0.0)
    inwards = predict(view, job(app, "layer", 100), {"layer-0": "b", "layer-1": "b", "layer-2": "a"}, 0.0)
    assert outwards.response_ms == pytest.approx(100 * FEATURES_BYTES / 1000, rel=0.1)
    assert inwards.response_ms < outwards.response_ms / 5


def test_a_tensor_between_two_slow_links_crosses_both_and_many_cross_them_at_the_same_time() -> None:
    app = three_ways(image_ms=0.0, micro_batch=1)
    view = cluster(*(node(name, link=1.0, loaded=all_of(app)) for name in "ab"))
    nodes = {"layer-0": "a", "layer-1": "b", "layer-2": "b"}
    one, many = (predict(view, job(app, "layer", images), nodes, 0.0).response_ms for images in (1, 101))
    crossings_ms = (PIXELS_BYTES + 4 * FEATURES_BYTES + LOGITS_BYTES) / 1000
    assert one == pytest.approx(crossings_ms + (3 + RETURN_HOPS) * HOP_MS)
    assert many == pytest.approx(one + 100 * 2 * FEATURES_BYTES / 1000, rel=0.05)  # two stages share b's link


def test_branches_on_one_node_share_its_link() -> None:
    app = three_ways(image_ms=0.0)
    view = cluster(*(node(name, link=0.1, up=1e9, loaded=all_of(app)) for name in "ab"))
    apart = predict(view, job(app, "semantic", 4), {"semantic-0": "a", "semantic-1": "b"}, 0.0)
    together = predict(view, job(app, "semantic", 4), {"semantic-0": "a", "semantic-1": "a"}, 0.0)
    assert together.response_ms - apart.response_ms == pytest.approx(4 * PIXELS_BYTES / 100)


def test_every_way_to_and_from_a_node_takes_half_of_its_round_trip() -> None:
    app = three_ways(image_ms=0.0)
    near = cluster(*(node(name, loaded=all_of(app)) for name in "ab"))
    far = cluster(node("a", round_trip_ms=30.0, loaded=all_of(app)), node("b", loaded=all_of(app)))
    nodes = {"layer-0": "b", "layer-1": "a", "layer-2": "b"}
    took = [predict(view, job(app, "layer", 1), nodes, 0.0).response_ms for view in (near, far)]
    assert took[1] - took[0] == pytest.approx(30.0)


def test_a_measured_hop_replaces_the_assumed_one() -> None:
    app = three_ways()
    states = [node(name, loaded=all_of(app)) for name in "abc"]
    took = []
    for hop_ms in (HOP_MS, HOP_MS + 10.0):
        view = ClusterView()
        view.apply(ClusterState(sequence=1, nodes=tuple(states), hop_ms=hop_ms), 0.0)
        nodes = {"layer-0": "a", "layer-1": "b", "layer-2": "c"}
        took.append(predict(view, job(app, "layer", 1), nodes, 0.0).response_ms)
    assert took[1] - took[0] == pytest.approx((3 + RETURN_HOPS) * 10.0)


def test_what_compression_saves_is_foreseen_also_where_only_others_have_measured_it() -> None:
    app = three_ways(image_ms=0.0)
    first = app.variant("layer").stages[0].fragment
    timing = FragmentTiming(fragment=first, milliseconds_per_image=0.0, output_ratio=0.25)
    told = node("a", link=1e9, up=1.0, loaded=all_of(app)).model_copy(update={"timings": (timing,)})
    others = [node(name, link=1e9, up=1.0, loaded=all_of(app)) for name in "bc"]
    nodes = {"layer-0": "b", "layer-1": "c", "layer-2": "c"}
    plain, known = (
        predict(cluster(*states), job(app, "layer", 4), nodes, 0.0).response_ms
        for states in (others, [told, *others])
    )
    assert plain - known == pytest.approx(0.75 * 4 * FEATURES_BYTES / 1000)


@pytest.mark.parametrize(("up", "saved"), [(1.0, 0.75), (1e6, 0.0)])
def test_what_the_manifest_says_of_compression_counts_on_links_on_which_nodes_compress(
    up: float, saved: float
) -> None:
    app = three_ways(image_ms=0.0)
    first = app.variant("layer").stages[0].fragment
    measured = tuple(
        each.model_copy(update={"output_ratio": 0.25 if each.sha256 == first else 1.0})
        for each in app.fragments
    )
    states = [node(name, link=1e9, up=up, loaded=all_of(app)) for name in "bc"]
    nodes = {"layer-0": "b", "layer-1": "c", "layer-2": "c"}
    plain, known = (
        predict(cluster(*states), job(each, "layer", 4), nodes, 0.0).response_ms
        for each in (app, app.model_copy(update={"fragments": measured}))
    )
    assert plain - known == pytest.approx(saved * 4 * FEATURES_BYTES / (1000 * up), abs=1e-6)


def test_what_a_node_has_to_do_already_and_what_it_must_fetch_come_first() -> None:
    app = three_ways(image_ms=10)
    view = cluster(node("a", loaded=all_of(app)), node("b"))
    base = predict(view, job(app, "whole", 1), {"whole-0": "a"}, 0.0).response_ms
    view.placed("c.other", 1, [StageWork("a", app.fragments[0], 100.0)], 0.0, due_ms=50.0)
    busy = predict(view, job(app, "whole", 1), {"whole-0": "a"}, 0.0).response_ms
    urgent = predict(view, job(app, "whole", 1), {"whole-0": "a"}, 0.0, due_ms=40.0).response_ms
    cold = predict(view, job(app, "whole", 1), {"whole-0": "b"}, 0.0).response_ms
    arrival = HOP_MS + PIXELS_BYTES / 100_000  # hidden behind the wait
    assert busy == pytest.approx(base + 100 - arrival)
    assert urgent == pytest.approx(base)
    assert cold == pytest.approx(base + FETCH_MS - arrival)


def test_tensors_wait_for_those_of_tasks_that_were_placed_before() -> None:
    app = three_ways(image_ms=0.0)
    view = cluster(*(node(name, link=1.0, loaded=all_of(app)) for name in "ab"))
    nodes = {"whole-0": "a"}
    free = predict(view, job(app, "whole", 4), nodes, 0.0).response_ms
    view.placed("c.other", 1, [StageWork("a", app.fragments[0], 0.0, input_bytes=50_000)], 0.0)
    busy, idle = (predict(view, job(app, "whole", 4), nodes, 0.0, idle=idle) for idle in (False, True))
    assert busy.response_ms == pytest.approx(free + 50)
    assert idle.response_ms == pytest.approx(free)
    assert predict(view, job(app, "whole", 4), {"whole-0": "b"}, 0.0).response_ms == pytest.approx(free)
    assert predict(view, job(app, "whole", 4), nodes, 50.0).response_ms == pytest.approx(free)
    view.finished("c.other", 10.0)
    assert predict(view, job(app, "whole", 4), nodes, 10.0).response_ms == pytest.approx(free)


def test_tasks_share_the_brokers_link_where_its_bandwidth_is_known() -> None:
    app = three_ways(image_ms=0.0)
    states = [node(name, link=100.0, up=100.0, loaded=all_of(app)) for name in "ab"]
    nodes = {"whole-0": "a"}
    unknown, known = cluster(*states), cluster(*states, broker=1.0)
    free = predict(known, job(app, "whole", 4), nodes, 0.0).response_ms
    slower_ms = 4 * PIXELS_BYTES * (1 / 1000 - 1 / 100_000)
    assert free - predict(unknown, job(app, "whole", 4), nodes, 0.0).response_ms == pytest.approx(slower_ms)
    for view in (unknown, known):
        view.placed("c.other", 1, [StageWork("b", app.fragments[0], 0.0, input_bytes=1e6)], 0.0)
    busy, idle = (predict(known, job(app, "whole", 4), nodes, 0.0, idle=idle) for idle in (False, True))
    assert busy.response_ms == pytest.approx(free + 4 * PIXELS_BYTES / 1000)  # it has half of the link
    assert idle.response_ms == pytest.approx(free)
    assert known.load_ms(0.0) == pytest.approx(1000.0)
    assert unknown.load_ms(0.0) == 0.0
    assert known.delays("a", 999.0)
    assert not known.delays("a", 1001.0)
    assert known.wait_ms("a", 0.0) == 0.0
    assert known.wait_ms("b", 0.0) == pytest.approx(10.0)


def test_only_tasks_that_have_something_left_share_the_brokers_link() -> None:
    app = three_ways(image_ms=0.0)
    view = cluster(node("a", link=100.0, up=100.0, loaded=all_of(app)), broker=1.0)
    view.placed("c.large", 1, [StageWork("a", app.fragments[0], 0.0, input_bytes=1e7)], 0.0)
    one = predict(view, job(app, "whole", 100), {"whole-0": "a"}, 0.0).response_ms
    for number in range(50):
        view.placed(f"c.{number}", 1, [StageWork("a", app.fragments[0], 0.0)], 0.0)
    assert predict(view, job(app, "whole", 100), {"whole-0": "a"}, 0.0).response_ms == one


def test_a_busy_link_delays_a_job_once_although_the_broker_carries_the_same_bytes() -> None:
    app = three_ways(image_ms=0.0)
    view = cluster(node("a", link=1.0, up=100.0, loaded=all_of(app)), broker=1.0)
    view.placed("c.other", 1, [StageWork("a", app.fragments[0], 0.0, input_bytes=100_000)], 0.0)
    predicted = predict(view, job(app, "whole", 100), {"whole-0": "a"}, 0.0)
    assert predicted.response_ms == pytest.approx(200, abs=20)


@pytest.mark.parametrize(
    ("variant", "nodes"),
    [
        ("semantic", {"semantic-0": "a", "semantic-1": "b"}),
        ("layer", {"layer-0": "a", "layer-1": "b", "layer-2": "a"}),
    ],
)
def test_all_tensors_of_a_job_cross_the_brokers_link(variant: str, nodes: dict[str, str]) -> None:
    app = three_ways(image_ms=0.0, micro_batch=10)
    view = cluster(*(node(name, link=100.0, up=100.0, loaded=all_of(app)) for name in "ab"), broker=1.0)
    wanted = job(app, variant, 100)
    predicted = predict(view, wanted, nodes, 0.0)
    assert predicted.carried_bytes == wanted.carried_bytes
    assert predicted.response_ms == pytest.approx(wanted.carried_bytes / 1000, rel=0.1)


def test_replicas_do_not_multiply_the_brokers_link() -> None:
    app = three_ways(image_ms=0.0, micro_batch=10)
    view = cluster(*(node(name, link=1.0, up=100.0, loaded=all_of(app)) for name in "abc"), broker=1.0)
    wanted = job(app, "whole", 120)
    schedule = StageSchedule(view, wanted, 0.0, 0.0)
    stage = wanted.variant.stages[0]
    alone, shared = schedule.offer(stage, "a"), schedule.offer_shared(stage, ("a", "b", "c"))
    assert shared.end_ms == pytest.approx(alone.end_ms)
    assert sum(shared.tensors[1]) == sum(alone.tensors[1]) == wanted.carried_bytes


def test_stages_that_compute_while_tensors_cross_the_brokers_link_do_not_wait_for_them() -> None:
    app = three_ways(image_ms=50.0, micro_batch=1)
    states = [node(name, link=100.0, up=100.0, loaded=all_of(app)) for name in "abc"]
    nodes = dict(zip(("layer-0", "layer-1", "layer-2"), "abc", strict=True))
    free, known = (
        predict(cluster(*states, broker=broker), job(app, "layer", 20), nodes, 0.0).response_ms
        for broker in (None, 1.0)
    )
    assert known == pytest.approx(free, rel=0.02)


def test_the_larger_share_of_nodes_and_brokers_link_counts() -> None:
    known = cluster(node("a"), node("b"), broker=1.0)
    assert known.burden_ms(5.0, 10_000) == pytest.approx(20.0)  # 10 ms, and two nodes
    assert known.burden_ms(50.0, 10_000) == 50.0
    assert cluster(node("a")).burden_ms(5.0, 1e12) == 5.0


def test_what_is_told_of_the_brokers_link_counts_from_then_on() -> None:
    app = three_ways()
    view = cluster(node("a"))
    view.placed("c.1", 1, [StageWork("a", app.fragments[0], 0.0, input_bytes=1e6)], 0.0)
    view.apply(snapshot(node("a"), broker=1.0), 10.0)
    assert view.load_ms(10.0) == 0.0
    view.placed("c.2", 1, [StageWork("a", app.fragments[0], 0.0, input_bytes=1e5)], 10.0)
    view.finished("c.1", 20.0)
    assert view.load_ms(20.0) == pytest.approx(90.0)
    view.apply(snapshot(node("a"), broker=10.0), 20.0)
    assert view.load_ms(20.0) == pytest.approx(9.0)
    view.apply(snapshot(node("a")), 21.0)
    assert view.load_ms(21.0) == 0.0


def test_a_node_without_speed_or_link_never_answers() -> None:
    app = three_ways()
    view = cluster(node("a", speed=0), node("b", link=0))
    for name in "ab":
        assert predict(view, job(app, "whole", 1), {"whole-0": name}, 0.0).response_ms == inf


def test_a_stage_without_a_living_node_is_an_error() -> None:
    app = three_ways()
    with pytest.raises(KeyError):
        predict(cluster(node("a")), job(app, "whole", 1), {"whole-0": "dead"}, 0.0)
    with pytest.raises(KeyError):
        predict(cluster(node("a")), job(app, "layer", 1), {"layer-0": "a"}, 0.0)


@given(
    batch=st.integers(1, 64),
    speeds=st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)),
    link=st.floats(0.5, 1000),
    variant=st.sampled_from(["whole", "layer", "semantic"]),
    places=st.lists(st.sampled_from("ab"), min_size=3, max_size=3),
)
def test_more_work_never_ends_sooner_and_no_answer_beats_its_busiest_node(
    batch: int, speeds: tuple[float, float], link: float, variant: str, places: list[str]
) -> None:
    app = three_ways(image_ms=3, call_ms=0.1)
    view = cluster(
        *(
            node(name, speed=speed, link=link, loaded=all_of(app))
            for name, speed in zip("ab", speeds, strict=True)
        )
    )
    stages = [stage.name for stage in app.variant(variant).stages]
    nodes = dict(zip(stages, places, strict=False))
    fewer, more = (predict(view, job(app, variant, images), nodes, 0.0) for images in (batch, batch + 1))
    assert more.response_ms > fewer.response_ms
    for name in "ab":
        busy = sum(ms for stage, ms in fewer.work_ms.items() if nodes[stage] == name)
        assert fewer.response_ms >= busy


def test_a_job_knows_its_sinks() -> None:
    app = three_ways()
    assert Job(app, app.variant("layer"), 1).sinks == {"layer-2"}
    assert Job(app, app.variant("semantic"), 1).sinks == {"semantic-0", "semantic-1"}
