"""Acknowledgements go out in the order of arrival."""

from hypothesis import given
from hypothesis import strategies as st

from splitplace.bus.subscriptions import Receipts


def test_a_message_is_acknowledged_when_it_was_handled() -> None:
    acknowledged: list[int] = []
    receipts = Receipts(acknowledged.append)
    receipt = receipts.arrived(7)
    assert acknowledged == []
    receipts.handled(receipt)
    assert acknowledged == [7]


def test_a_message_waits_for_the_acknowledgement_of_earlier_ones() -> None:
    acknowledged: list[int] = []
    receipts = Receipts(acknowledged.append)
    first, second, third = (receipts.arrived(packet) for packet in (1, 2, 3))
    receipts.handled(second)
    assert acknowledged == []
    receipts.handled(first)
    assert acknowledged == [1, 2]
    receipts.handled(third)
    assert acknowledged == [1, 2, 3]


@given(st.permutations(range(8)))
def test_in_whatever_order_handlers_end_packets_are_acknowledged_in_order_of_arrival(
    order: list[int],
) -> None:
    acknowledged: list[int] = []
    receipts = Receipts(acknowledged.append)
    arrived = [receipts.arrived(packet) for packet in range(8)]
    for index in order:
        receipts.handled(arrived[index])
    assert acknowledged == list(range(8))
