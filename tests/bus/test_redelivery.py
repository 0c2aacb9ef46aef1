"""What Mosquitto delivers once more says so (the embedded broker does not say it): copies are known."""

import asyncio

from splitplace.bus.connection import Bus, RawReceived
from splitplace.bus.identity import Session
from splitplace.bus.settings import Settings
from splitplace.messages.topics import TASK_OF_CLIENT
from tests.support.waiting import until

SESSION = Session(expiry_s=60, clean_start=False)


async def test_a_message_that_was_not_acknowledged_comes_again_and_says_so(mosquitto_url: str) -> None:
    settings = Settings(broker=mosquitto_url)
    seen: list[bool] = []
    may_end = asyncio.Event()

    async def handle(raw: RawReceived) -> None:
        seen.append(raw.redelivered)
        await may_end.wait()

    def receiver() -> Bus:
        bus = Bus(settings, "receiver", session=SESSION)
        bus.subscribe_raw(TASK_OF_CLIENT, handle)
        return bus

    sender = Bus(settings, "sender")
    async with sender:
        async with receiver() as first:
            await asyncio.gather(first.connected(), sender.connected())
            await sender.publish_raw(TASK_OF_CLIENT.at(application="a", client="c"), b"x")
            await until(lambda: seen)
        may_end.set()
        async with receiver():
            await until(lambda: len(seen) > 1)
    assert seen == [False, True]
