"""Groups of pieces on nodes: checked against every grouping, and against a simulated pipeline."""

from collections.abc import Iterator
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.messages.limits import CHUNK_BYTES
from splitplace.policies.cost import HOP_MS, RETURN_MS, Floats
from splitplace.policies.placement.grouping import (
    LABELS,
    Grouping,
    NodeColumns,
    PieceCosts,
    PlannedRun,
    Source,
    group,
)


def pieces_of(random: np.random.Generator, nodes: int, pieces: int) -> PieceCosts:
    slow = random.uniform(0.5, 4, (nodes, 1))
    weights, activations = random.uniform(0, 40, pieces), random.uniform(0, 20, pieces)
    missing = random.integers(0, 2, (nodes, pieces, pieces))
    needed = np.zeros((pieces, pieces))
    for first in range(pieces):
        for last in range(first, pieces):
            run = slice(first, last + 1)
            needed[first, last] = weights[run].sum() + activations[run].max()
    return PieceCosts(
        work_ms=slow * random.uniform(0, 20, pieces),
        call_ms=random.uniform(0, 2, nodes),
        load_ms=random.uniform(0, 60, (nodes, pieces, pieces)) * missing,
        needed_bytes=missing * needed,
        crossing_bytes=random.uniform(0, 5000, pieces + 1),
    )


def needed(pieces: int, weight_bytes: float) -> Floats:
    """Memory of runs of equal pieces, whose tensors need 1 byte."""
    places = np.arange(pieces)
    count: Floats = np.maximum(0.0, places[None] - places[:, None] + 1.0)
    return count[None] * weight_bytes + 1.0


def nodes_of(random: np.random.Generator, nodes: int) -> NodeColumns:
    return NodeColumns(
        ready_ms=random.uniform(0, 80, nodes),
        free_bytes=random.uniform(20, 200, nodes),
        byte_ms=random.uniform(1e-4, 1e-2, nodes),
        up_byte_ms=random.uniform(1e-4, 1e-2, nodes),
        latency_ms=random.uniform(0, 10, nodes),
    )


def equal_nodes(count: int, free_bytes: float, byte_ms: float) -> NodeColumns:
    """Idle nodes whose links are as fast in both directions."""
    links = np.full(count, byte_ms)
    return NodeColumns(np.zeros(count), np.full(count, free_bytes), links, links, np.zeros(count))


def every_grouping(pieces: int, nodes: int) -> Iterator[tuple[PlannedRun, ...]]:
    for stages in range(1, min(pieces, nodes) + 1):
        for cuts in combinations(range(1, pieces), stages - 1):
            bounds = [0, *cuts, pieces]
            for chosen in permutations(range(nodes), stages):
                yield tuple(
                    PlannedRun(bounds[stage], bounds[stage + 1], node) for stage, node in enumerate(chosen)
                )


def simulated_end_ms(
    stages: tuple[PlannedRun, ...], pieces: PieceCosts, nodes: NodeColumns, batches: int, source: Source
) -> float:
    """Follow each micro-batch over each link and node; infinite if a stage does not fit."""
    sent = list(np.linspace(source.first_ms, source.last_ms, batches))
    sender: int | None = None
    for start, end, node in stages:
        run = slice(start, end)
        if pieces.needed_bytes[node, start, end - 1] > nodes.free_bytes[node]:
            return np.inf
        sent_bytes, hop_ms = pieces.crossing_bytes[start], HOP_MS + nodes.latency_ms[node]
        link_ms = sent_bytes * nodes.byte_ms[node]
        if sender is not None:
            links = nodes.byte_ms[node], nodes.up_byte_ms[sender]
            link_ms = sent_bytes * max(links)
            hop_ms += nodes.latency_ms[sender] + min(sent_bytes, CHUNK_BYTES) * min(links)
        work_ms = pieces.work_ms[node, run].sum() + pieces.call_ms[node]
        link_free = 0.0
        node_free = max(nodes.ready_ms[node], pieces.load_ms[node, start, end - 1])
        done = []
        for moment in sent:
            link_free = max(moment, link_free) + link_ms
            node_free = max(node_free, link_free + hop_ms) + work_ms
            done.append(node_free)
        sent, sender = done, node
    assert sender is not None
    link_free = 0.0
    for moment in sent:
        link_free = max(moment, link_free) + pieces.crossing_bytes[-1] * nodes.up_byte_ms[sender]
    return float(link_free + nodes.latency_ms[sender] + RETURN_MS)


def best_end_ms(pieces: PieceCosts, nodes: NodeColumns, batches: int, source: Source) -> float:
    count = len(pieces.crossing_bytes) - 1
    return min(
        simulated_end_ms(stages, pieces, nodes, batches, source)
        for stages in every_grouping(count, len(nodes.ready_ms))
    )


def solve(
    seed: int, node_count: int, piece_count: int, batches: int, labels: int
) -> tuple[Grouping | None, float, float]:
    """Return the grouping, its end by simulation, and the end of the best of all groupings."""
    random = np.random.default_rng(seed)
    pieces, nodes = pieces_of(random, node_count, piece_count), nodes_of(random, node_count)
    source = Source(5.0, 5.0)
    found = group(pieces, nodes, batches, source, 0.0, labels=labels)
    best = best_end_ms(pieces, nodes, batches, source)
    if found is None:
        return None, np.inf, best
    return found, simulated_end_ms(found.stages, pieces, nodes, batches, source), best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    node_count=st.integers(1, 4),
    piece_count=st.integers(1, 5),
    batches=st.integers(1, 6),
)
def test_the_best_of_all_groupings_is_found(
    seed: int, node_count: int, piece_count: int, batches: int
) -> None:
    found, simulated, best = solve(seed, node_count, piece_count, batches, labels=1000)
    if found is None:
        assert best == np.inf
    else:
        assert simulated == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), batches=st.integers(1, 12))
def test_the_times_are_those_of_a_simulated_pipeline(seed: int, batches: int) -> None:
    found, simulated, _ = solve(seed, 3, 4, batches, labels=4)
    if found is not None:
        assert found.end_ms == pytest.approx(simulated)


def test_few_labels_are_nearly_always_enough() -> None:
    ratios = []
    for seed in range(200):
        found, simulated, best = solve(seed, 4, 5, 4, labels=LABELS)
        if found is not None:
            ratios.append(simulated / best)
    assert np.mean(np.array(ratios) > 1 + 1e-9) < 0.02
    assert max(ratios) < 1.1


def test_no_node_gets_two_stages_and_all_pieces_are_run_in_order() -> None:
    random = np.random.default_rng(3)
    pieces, nodes = pieces_of(random, 10, 20), nodes_of(random, 10)
    found = group(pieces, nodes, 8, Source(0.0, 0.0), 0.0)
    assert found is not None
    assert len({run.node for run in found.stages}) == len(found.stages)
    assert [piece for run in found.stages for piece in range(run.first_piece, run.end_piece)] == list(
        range(20)
    )


def test_a_chain_too_large_for_one_node_is_divided_and_one_too_large_for_all_is_refused() -> None:
    pieces = PieceCosts(
        work_ms=np.ones((3, 6)),
        call_ms=np.zeros(3),
        load_ms=np.zeros((3, 6, 6)),
        needed_bytes=needed(6, weight_bytes=10.0),
        crossing_bytes=np.ones(7),
    )
    roomy = equal_nodes(3, free_bytes=25.0, byte_ms=1e-3)
    found = group(pieces, roomy, 1, Source(0.0, 0.0), 0.0)
    assert found is not None
    assert [run.end_piece - run.first_piece for run in found.stages] == [2, 2, 2]
    assert group(pieces, roomy, 1, Source(0.0, 0.0), 0.0, max_stages=2) is None
    small = equal_nodes(3, free_bytes=15.0, byte_ms=1e-3)
    assert group(pieces, small, 1, Source(0.0, 0.0), 0.0) is None


def test_many_micro_batches_spread_over_equal_nodes_and_one_stays_on_one() -> None:
    pieces = PieceCosts(
        work_ms=np.full((4, 8), 5.0),
        call_ms=np.zeros(4),
        load_ms=np.zeros((4, 8, 8)),
        needed_bytes=needed(8, weight_bytes=1.0),
        crossing_bytes=np.ones(9),
    )
    nodes = equal_nodes(4, free_bytes=100.0, byte_ms=1e-4)
    single = group(pieces, nodes, 1, Source(0.0, 0.0), 0.0)
    many = group(pieces, nodes, 32, Source(0.0, 0.0), 0.0)
    assert single is not None
    assert many is not None
    assert len(single.stages) == 1
    assert [run.end_piece - run.first_piece for run in many.stages] == [2, 2, 2, 2]


def test_too_many_nodes_are_an_error() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="63 nodes"):
        group(pieces_of(random, 63, 2), nodes_of(random, 63), 1, Source(0.0, 0.0), 0.0)
