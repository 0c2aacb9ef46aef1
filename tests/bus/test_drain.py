"""Since when messages may have waited at the broker."""

from splitplace.bus.drain import Drain


def test_a_message_that_is_read_alone_is_new() -> None:
    drain = Drain(window=256)
    for now_ms in (10.0, 5000.0):
        assert drain.read(1, now_ms) == now_ms
        drain.ended(1, is_empty=True)


def test_while_there_is_always_more_to_read_a_message_may_be_as_old_as_the_first() -> None:
    drain = Drain(window=256)
    for now_ms in (10.0, 20.0, 900.0):
        assert drain.read(1, now_ms) == 10.0
        drain.ended(0, is_empty=False)
    drain.ended(0, is_empty=True)
    assert drain.read(1, 901.0) == 901.0


def test_an_empty_socket_says_nothing_while_the_broker_waits_for_acknowledgements() -> None:
    drain = Drain(window=256)
    for unacknowledged in range(1, 257):
        drain.read(unacknowledged, 10.0)
    drain.ended(256, is_empty=True)
    assert drain.read(256, 500.0) == 10.0
    drain.ended(255, is_empty=True)
    assert drain.read(200, 501.0) == 501.0


def test_the_window_of_a_broker_that_sends_fewer_is_learned() -> None:
    drain = Drain(window=256)
    for unacknowledged in range(1, 21):
        drain.read(unacknowledged, 10.0)
    drain.ended(20, is_empty=True)
    assert drain.read(20, 500.0) == 10.0
