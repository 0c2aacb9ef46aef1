from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.placement.features import KINDS, PlacingJob, Problem, build_problem
from splitplace.policies.placement.search import FreeMemory, local_search, mirror_ascent, one_hot, rounded
from splitplace.policies.placement.surrogate import (
    CHANNELS,
    INPUTS,
    SHAPES,
    Array,
    PlacedStages,
    SurrogateObjective,
    Tasks,
    Weights,
    initial_weights,
    pool,
    together,
)
from splitplace.policies.placement.training import (
    WITHIN,
    PlacementSample,
    correlation_within,
    fit,
    loss_and_gradients,
    predicted,
    rank_correlation,
)
from splitplace.policies.placement.weights import weights_of, weights_state
from splitplace.policies.stage_work import StageWork
from splitplace.policies.state import Json, StateError
from tests.support.examples import all_of, cluster, job, node, three_ways

APP = three_ways(image_ms=10, megabytes=30)
SPEEDS = (0.5, 1, 2, 4)


def weights(seed: int = 0) -> dict[str, Array]:
    return initial_weights(np.random.default_rng(seed))


def example(
    *,
    decision_aware: bool = True,
    due_ms: float = 900.0,
    variants: Sequence[str] = ("layer", "semantic"),
) -> Problem:
    """A chain of three and a star of two, half of one stage done, on four nodes. One node is busy."""
    view = cluster(*(node(f"n{speed}", speed=speed, link=20, loaded=all_of(APP)) for speed in SPEEDS))
    view.placed("c.other", 1, [StageWork("n4", APP.fragments[0], 300.0)], 0.0)
    jobs = [
        PlacingJob(job(APP, variant, 40), (1 + number) * due_ms, {"layer-1": 0.5})
        for number, variant in enumerate(variants)
    ]
    columns = view.columns
    return build_problem(
        jobs, columns, 0.0, columns.ready_ms(0.0), columns.usable(frozenset()), decision_aware=decision_aware
    )


def in_double_precision(problem: Problem) -> Problem:
    """So that finite differences are good to many digits."""
    values = {name: getattr(problem, name) for name in Problem.__slots__}
    for name in ("features", "time", "waiting", "work", "unit", "task_features"):
        values[name] = values[name].astype(np.float64)
    return Problem(**values)


def relaxed_placement(problem: Problem, seed: int = 0) -> Array:
    powers: Array = np.random.default_rng(seed).random(problem.time.shape)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@pytest.mark.parametrize("variants", [("layer", "semantic"), ("layer",), ("semantic",), ("whole",)])
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_in_the_relaxed_placement_is_that_of_finite_differences(
    seed: int, variants: Sequence[str]
) -> None:
    problem = in_double_precision(example(variants=variants))
    surrogate, placement = SurrogateObjective(weights(seed), problem), relaxed_placement(problem, seed)
    gradient = surrogate.gradient(placement)
    for place in product(*map(range, placement.shape)):
        step = np.zeros_like(placement)
        step[place] = 1e-6
        higher, lower = surrogate.values(placement + step).sum(), surrogate.values(placement - step).sum()
        assert gradient[place] == pytest.approx((higher - lower) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_in_every_weight_is_that_of_finite_differences(seed: int) -> None:
    samples = in_states(made_up_samples(8, seed), 3)
    fitted = weights(seed)
    _, gradients = loss_and_gradients(fitted, samples)
    random = np.random.default_rng(seed)
    assert gradients.keys() == SHAPES.keys()
    for name, values in fitted.items():
        for _ in range(5):
            place = tuple(random.integers(size) for size in values.shape)
            before = values[place]
            values[place] = before + 1e-6
            higher, _ = loss_and_gradients(fitted, samples)
            values[place] = before - 1e-6
            lower, _ = loss_and_gradients(fitted, samples)
            values[place] = before
            assert gradients[name][place] == pytest.approx((higher - lower) / 2e-6, rel=1e-4, abs=1e-7)


def made_up_samples(count: int, seed: int = 0) -> list[PlacementSample]:
    """Tasks whose objective falls with the time of all their fragments: something that can be learnt."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        size = int(random.integers(1, 6))
        time, waiting = random.exponential(1.0, size), random.exponential(1.0, size)
        target = 1 - 0.3 * float(np.log1p(time.sum() + waiting.max()))
        task_features = random.random(SHAPES["w3"][0] - 2 * CHANNELS - 4)
        pooled_inputs = np.stack((time, waiting, np.zeros(size)), axis=1)
        samples.append(PlacementSample(random.random((size, INPUTS)), pooled_inputs, task_features, target))
    return samples


def in_states(samples: Sequence[PlacementSample], size: int) -> list[PlacementSample]:
    """So many samples one behind the other are of one state, but the first is of its own."""
    return [
        replace(sample, state=f"state {number // size}" if number else "")
        for number, sample in enumerate(samples)
    ]


def test_errors_that_differ_within_a_state_count_again() -> None:
    samples = made_up_samples(6)
    realised = np.array([sample.target for sample in samples])
    error = predicted(weights(), samples) - realised
    assert loss_and_gradients(weights(), samples)[0] == pytest.approx((error**2).mean())
    states = [replace(sample, state="ab"[number // 3]) for number, sample in enumerate(samples)]
    within = error - np.repeat([error[:3].mean(), error[3:].mean()], 3)
    expected = (error**2).mean() + WITHIN * (within**2).mean()
    assert loss_and_gradients(weights(), states)[0] == pytest.approx(expected)


def test_nodes_are_told_apart_where_most_of_the_objective_is_the_task() -> None:
    """Three placements of each task; the noise is the same for all three and hides the difference."""

    def samples(count: int, seed: int) -> list[PlacementSample]:
        noise = np.random.default_rng(seed).normal(size=count)
        return [
            replace(one, target=one.target + float(noise[number // 3]), state=f"{number // 3}")
            for number, one in enumerate(made_up_samples(3 * count, seed))
        ]

    train, others = samples(200, 1), samples(100, 2)
    alone = [replace(sample, state="") for sample in train]
    realised = np.array([sample.target for sample in others])
    with_states, without = (
        correlation_within(predicted(fitted, others), realised, others)
        for fitted in (fit(weights(), some, np.random.default_rng(0), steps=300) for some in (train, alone))
    )
    assert with_states > 0.7
    assert with_states > without + 0.1


def test_correlation_within_states_is_the_mean_over_states_with_a_difference() -> None:
    samples = [replace(one, state=state) for one, state in zip(made_up_samples(9), "aaabbbccd", strict=True)]
    one = np.array([1.0, 2, 3, 1, 2, 3, 5, 5, 0])
    other = np.array([10.0, 20, 30, 3, 2, 1, 1, 2, 0])
    assert correlation_within(one, other, samples) == pytest.approx((1 - 1) / 2)
    other[3:6] = 1, 3, 2
    assert correlation_within(one, other, samples) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(correlation_within(one[:1], other[:1], samples[:1]))


def test_a_fragment_waits_for_what_is_placed_with_it_and_not_for_itself() -> None:
    problem = example()
    surrogate = SurrogateObjective(weights(), problem)
    crowded = surrogate.placed(one_hot(np.array([0, 0, 1, 2, 3]), 4))
    work = problem.work * (np.array([0, 0, 1, 2, 3])[:, None] == np.arange(4))
    _, waiting, same = crowded.pooled_inputs.T
    assert waiting[0] == pytest.approx(work[1, 0] / problem.unit[0])
    assert waiting[1] == pytest.approx(work[0, 0] / problem.unit[1])
    assert waiting[2] == waiting[3] == 0
    assert waiting[4] == pytest.approx(300.0 / problem.unit[4])  # the busy node
    assert list(same) == [0, 1, 0, 0, 0]


def test_the_objective_of_a_task_does_not_depend_on_the_order_of_its_fragments() -> None:
    random = np.random.default_rng(0)
    pooled_inputs = random.random((4, 3))
    embeddings = random.random((4, CHANNELS))
    task_features = random.random((1, SHAPES["w3"][0] - 2 * CHANNELS - 4))
    order = [2, 0, 3, 1]
    one, other = (
        pool(weights(), together(stages, Tasks(np.array([4]))), task_features)[0]
        for stages in (
            PlacedStages(embeddings, pooled_inputs),
            PlacedStages(embeddings[order], pooled_inputs[order]),
        )
    )
    assert one == pytest.approx(other)


def test_decision_accuracy_and_slack_are_inputs_of_daso_and_not_of_gobi() -> None:
    daso, gobi = example(), example(decision_aware=False)
    decisions = daso.task_features[:, 3 : 3 + len(KINDS)]
    assert decisions.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert daso.task_features[:, -1] == pytest.approx([0.9, 0.8])
    assert not gobi.task_features[:, 3:].any()
    later = example(decision_aware=False, due_ms=5000.0)
    assert np.array_equal(gobi.features, later.features)
    assert np.array_equal(gobi.task_features, later.task_features)
    assert not np.array_equal(daso.task_features, example(due_ms=5000.0).task_features)


def test_nodes_differ_as_much_for_a_task_that_has_all_the_time() -> None:
    assert np.array_equal(example().features, example(due_ms=1e9).features)
    assert np.ptp(example(due_ms=1e9).time, axis=1).min() > 0.1


def test_features_have_no_unit() -> None:
    """A task that is a thousand times longer on the same cluster looks the same but for the transfers."""
    for aware in (True, False):
        features = []
        for scale in (1, 1000):
            app = three_ways(image_ms=scale, megabytes=30)
            view = cluster(
                *(node(f"n{speed}", speed=speed, link=20 / scale, loaded=all_of(app)) for speed in SPEEDS)
            )
            columns = view.columns
            problem = build_problem(
                [PlacingJob(job(app, "layer", 40), 90.0 * scale)],
                columns,
                0.0,
                columns.ready_ms(0.0),
                columns.usable(frozenset()),
                decision_aware=aware,
            )
            features.append(problem.features)
        assert features[0] == pytest.approx(features[1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("variant", ["whole", "layer", "semantic"])
def test_what_a_move_brings_is_what_the_moved_placement_is_worth(variant: str) -> None:
    problem = in_double_precision(example(variants=[variant]))
    surrogate, stages = SurrogateObjective(weights(), problem), len(problem.stages)
    for chosen in product(range(4), repeat=stages):
        found = surrogate.moves(np.array(chosen))
        for index, place in product(range(stages), range(4)):
            moved = np.array(chosen)
            moved[index] = place
            value = surrogate.values(one_hot(moved, 4).astype(np.float64)).sum()
            assert found[index, place] == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("variant", ["layer", "semantic"])
def test_the_search_finds_the_best_of_all_placements_of_a_small_job(variant: str) -> None:
    """Against trying all of them: in most states exactly, and never far from it."""
    regrets = []
    for seed in range(20):
        problem = example(due_ms=200.0 + 100 * seed, variants=[variant])
        surrogate, stages = SurrogateObjective(weights(seed), problem), len(problem.stages)
        values = {
            chosen: float(surrogate.values(one_hot(np.array(chosen), 4)).sum())
            for chosen in product(range(4), repeat=stages)
        }
        view = cluster(*(node(f"n{speed}", speed=speed, link=20, loaded=all_of(APP)) for speed in SPEEDS))
        free = FreeMemory(problem, view.columns)
        guess = np.zeros((stages, 4), np.float32)
        found = local_search(
            surrogate, rounded(mirror_ascent(surrogate, guess, problem.allowed), problem, free), free
        )
        spread = max(values.values()) - min(values.values())
        regrets.append((max(values.values()) - values[tuple(found.tolist())]) / spread)
    assert np.median(regrets) < 0.001
    assert np.mean(regrets) < 0.03
    assert max(regrets) < 0.4


def three_stages(columns: ClusterColumns) -> Problem:
    """A chain of three stages that is to be placed."""
    return build_problem(
        [PlacingJob(job(APP, "layer", 4), 500.0)],
        columns,
        0.0,
        columns.ready_ms(0.0),
        columns.usable(frozenset()),
        decision_aware=True,
    )


def test_rounding_gives_no_node_more_than_it_has_room_for() -> None:
    outputs = np.tile(np.array([0.7, 0.2, 0.1], np.float32), (3, 1))  # all want the first node
    for nodes, expected in ((3, [0, 1, 2]), (2, [-1, 0, 1])):
        columns = cluster(*(node(f"n{index}", megabytes=11) for index in range(nodes))).columns
        problem = three_stages(columns)
        assert sorted(rounded(outputs[:, :nodes], problem, FreeMemory(problem, columns)).tolist()) == expected


def test_rounding_leaves_on_a_node_as_many_as_the_relaxed_placement_has_there() -> None:
    columns = cluster(*(node(f"n{index}") for index in range(3))).columns
    problem = three_stages(columns)
    undecided = np.tile(np.array([0.36, 0.33, 0.31], np.float32), (3, 1))
    assert sorted(rounded(undecided, problem, FreeMemory(problem, columns)).tolist()) == [0, 1, 2]
    decided = np.tile(np.array([0.9, 0.05, 0.05], np.float32), (3, 1))
    assert rounded(decided, problem, FreeMemory(problem, columns)).tolist() == [0, 0, 0]


def test_the_surrogate_learns_and_ranks_what_it_has_not_seen() -> None:
    train, others = made_up_samples(600, seed=1), made_up_samples(200, seed=2)
    before = weights()
    fitted = fit(before, train, np.random.default_rng(0), steps=600)
    realised = np.array([sample.target for sample in others])
    assert rank_correlation(predicted(fitted, others), realised) > 0.9
    assert rank_correlation(predicted(before, others), realised) < 0.8
    assert loss_and_gradients(fitted, others)[0] < 0.2 * realised.var()


def test_learning_repeats_by_seed_and_leaves_the_old_weights_alone() -> None:
    before = weights()
    kept = {name: values.copy() for name, values in before.items()}
    samples = made_up_samples(80)
    once, twice = (fit(before, samples, np.random.default_rng(3), steps=5) for _ in range(2))
    assert all(np.array_equal(once[name], twice[name]) for name in SHAPES)
    assert all(np.array_equal(before[name], kept[name]) for name in SHAPES)
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(before, [], np.random.default_rng(0), steps=1)


def test_rank_correlation_shares_the_ranks_of_equals() -> None:
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 200, 3000])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert rank_correlation(np.array([1.0, 5, 5, 9]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9**0.5)


def test_weights_survive_as_json_and_foreign_ones_are_refused() -> None:
    state = dict(weights_state(weights()))
    again: Weights = weights_of(state)
    assert all(again[name] == pytest.approx(values, abs=1e-6) for name, values in weights().items())
    wrong: list[Json] = [None, "text", [1.0, 2.0], [["a"]], [float("nan")]]
    for value in wrong:
        with pytest.raises(StateError, match="b4"):
            weights_of({**state, "b4": value})
