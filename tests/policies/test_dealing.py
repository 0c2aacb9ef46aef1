"""Micro-batches are dealt in proportion to what the replicas can do."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.policies.cost import HOP_MS
from splitplace.policies.dealing import ReadyInput, Replica, deal, numbers_by_node

SPEEDS_MS = st.lists(st.sampled_from([1.0, 2.0, 3.0, 7.5]), min_size=1, max_size=3)


def replica(
    node: str, image_ms: float, *, free_ms: float = 0.0, byte_ms: float = 0.0, call_ms: float = 0.0
) -> Replica:
    return Replica(node, free_ms, byte_ms, call_ms, image_ms)


def together(count: int, images: int = 4) -> list[ReadyInput]:
    """Micro-batches that the gateway sends at 0 ms."""
    return [ReadyInput(0.0, images)] * count


def counts(inputs: list[ReadyInput], *replicas: Replica, image_bytes: float = 0.0) -> dict[str, int]:
    dealt = deal(inputs, replicas, image_bytes)
    return {node: len(numbers) for node, numbers in numbers_by_node([each.node for each in dealt]).items()}


@pytest.mark.parametrize(("image_ms", "shares"), [
    ((1.0, 1.0), (8, 8)),
    ((1.0, 3.0), (12, 4)),
    ((1.0, 1.0, 2.0), (7, 6, 3)),
    ((1.0, 100.0), (16,)),
])  # fmt: skip
def test_shares_are_in_proportion_to_speed(image_ms: tuple[float, ...], shares: tuple[int, ...]) -> None:
    replicas = [replica(f"n{index}", each_ms) for index, each_ms in enumerate(image_ms)]
    assert tuple(counts(together(16), *replicas).values()) == shares


def test_a_queue_and_a_slow_link_cost_shares() -> None:
    assert counts(together(8), replica("a", 1.0), replica("b", 1.0, free_ms=16.0)) == {"a": 6, "b": 2}
    slow_link = replica("b", 1.0, byte_ms=0.0025)  # 2.5 ms an image, 1 ms to compute it
    assert counts(together(8), replica("a", 1.0), slow_link, image_bytes=1000.0) == {"a": 6, "b": 2}


def test_one_sender_serves_two_receivers_one_after_the_other() -> None:
    sender = [ReadyInput(0.0, 1, "s", byte_ms=0.01)] * 2
    dealt = deal(sender, [replica("a", 50.0), replica("b", 50.0)], 1000.0)
    assert [each.node for each in dealt] == ["a", "b"]
    assert [each.finish_ms for each in dealt] == [10 + HOP_MS + 50, 20 + HOP_MS + 50]


def test_two_senders_meet_at_one_receiver_in_the_order_in_which_they_are_ready() -> None:
    made = [ReadyInput(30.0, 1, "a"), ReadyInput(0.0, 1, "b"), ReadyInput(10.0, 1, "b")]
    dealt = deal(made, [replica("c", 20.0)], 1000.0)
    assert [each.finish_ms for each in dealt] == [HOP_MS + 60.0, HOP_MS + 20.0, HOP_MS + 40.0]


def test_a_settled_dealing_is_only_timed() -> None:
    replicas = [replica("a", 1.0), replica("b", 1.0)]
    dealt = deal(together(3), replicas, 0.0, given=["b", "b", "a"])
    assert [each.node for each in dealt] == ["b", "b", "a"]
    assert [each.finish_ms for each in dealt] == [HOP_MS + 4, HOP_MS + 8, HOP_MS + 4]
    with pytest.raises(KeyError, match="micro-batch 2"):
        deal(together(3), replicas, 0.0, given=["b", "b", "c"])


@given(
    count=st.integers(1, 6),
    image_ms=SPEEDS_MS,
    free_ms=st.lists(st.sampled_from([0.0, 5.0, 40.0]), min_size=3, max_size=3),
    byte_ms=st.lists(st.sampled_from([0.0, 0.001, 0.01]), min_size=3, max_size=3),
    call_ms=st.sampled_from([0.0, 2.0]),
)
@settings(max_examples=60)
def test_no_dealing_of_equal_micro_batches_ends_sooner(
    count: int, image_ms: list[float], free_ms: list[float], byte_ms: list[float], call_ms: float
) -> None:
    replicas = [
        replica(f"n{index}", each_ms, free_ms=free_ms[index], byte_ms=byte_ms[index], call_ms=call_ms)
        for index, each_ms in enumerate(image_ms)
    ]
    inputs = together(count)

    def end_ms(given: tuple[str, ...] | None) -> float:
        return max(each.finish_ms for each in deal(inputs, replicas, 1000.0, given))

    every = product([each.node for each in replicas], repeat=count)
    assert end_ms(None) == pytest.approx(min(map(end_ms, every)))


@given(
    ready_ms=st.lists(st.floats(0, 100), min_size=1, max_size=20),
    image_ms=SPEEDS_MS,
    images=st.integers(1, 8),
)
def test_every_micro_batch_is_dealt_once_and_no_node_does_two_calls_at_a_time(
    ready_ms: list[float], image_ms: list[float], images: int
) -> None:
    replicas = [replica(f"n{index}", each_ms) for index, each_ms in enumerate(image_ms)]
    inputs = [ReadyInput(each_ms, images, "s", 0.001) for each_ms in ready_ms]
    dealt = deal(inputs, replicas, 10.0)
    by_node = numbers_by_node([each.node for each in dealt])
    assert sorted(number for numbers in by_node.values() for number in numbers) == list(range(len(inputs)))
    for each in replicas:
        ends = sorted(dealt[number].finish_ms for number in by_node.get(each.node, ()))
        gaps = [later - earlier for earlier, later in pairwise(ends)]
        assert all(gap >= images * each.image_ms - 1e-9 for gap in gaps)
        for number in by_node.get(each.node, ()):
            assert dealt[number].finish_ms >= ready_ms[number] + HOP_MS + images * each.image_ms
