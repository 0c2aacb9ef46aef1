"""The keepalive follows links that are silent again and again, and a part's settings."""

from hypothesis import given
from hypothesis import strategies as st

from nemesis.proxy import Link
from splitplace.bus.connection import Bus
from splitplace.bus.keepalive import BRIEF_S, MAX_KEEPALIVE_S, Keepalive
from splitplace.bus.settings import Settings
from tests.support.waiting import until


def test_one_silence_changes_nothing_and_the_second_doubles() -> None:
    keepalive = Keepalive(2)
    keepalive.broke(held_s=3.0)
    assert keepalive.next_s == 2
    keepalive.broke(held_s=3.0)
    assert keepalive.next_s == 4


def test_a_connection_that_held_makes_it_the_usual_one_again() -> None:
    keepalive = Keepalive(2)
    for _ in range(3):
        keepalive.broke(held_s=3.0)
    keepalive.broke(held_s=2 * BRIEF_S)
    assert keepalive.next_s == 2


@given(st.integers(1, 600), st.lists(st.floats(0, 200)))
def test_it_stays_between_the_usual_one_and_the_limit(usual_s: int, held: list[float]) -> None:
    keepalive = Keepalive(usual_s)
    for held_s in held:
        keepalive.broke(held_s)
        assert usual_s <= keepalive.next_s <= max(usual_s, MAX_KEEPALIVE_S)


async def test_a_connection_survives_holes_once_its_keepalive_is_long_enough(mosquitto_url: str) -> None:
    broker = Settings(broker=mosquitto_url)
    link = Link(broker.port, broker.host)
    await link.start()
    settings = Settings(broker=f"mqtt://127.0.0.1:{link.port}", keepalive_s=1)
    try:
        async with Bus(settings, "part") as bus:
            for _ in range(2):
                await bus.connected()
                link.inflict("blackhole-down", 0)
                await until(lambda: not bus.is_connected)
                link.heal()
            await bus.connected()
            assert bus._identity.keepalive.next_s == 2
    finally:
        await link.stop()
