"""What the retain flag of a task means follows from how the gateway's announcement was delivered."""

from typing import Final

import pytest

from splitplace.bus.incoming import RawReceived, RequestProperties
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.topics import GATEWAY
from splitplace.services.gateway import retain_flag
from splitplace.services.gateway.retain_flag import RetainFlag

BOOT: Final = "a" * 16


def arrival(payload: bytes, *, retained: bool) -> RawReceived:
    return RawReceived({"service": GATEWAY}, payload, RequestProperties(), retained)


def status(*, boot: str = BOOT, online: bool = True, retained: bool) -> RawReceived:
    said = ServiceStatus(service=GATEWAY, boot=boot, online=online, software="1")
    return arrival(said.model_dump_json().encode(), retained=retained)


async def test_where_our_announcement_comes_flagged_no_task_is_old() -> None:
    flag = RetainFlag(BOOT)
    await flag.on_status(status(retained=True))
    assert not await flag.is_old(arrival(b"task", retained=True))


async def test_where_it_comes_without_the_flag_a_flagged_task_is_old() -> None:
    flag = RetainFlag(BOOT)
    await flag.on_status(status(retained=False))
    await flag.on_status(status(retained=True))  # from the broker's memory, at the next connection
    assert await flag.is_old(arrival(b"task", retained=True))
    assert not await flag.is_old(arrival(b"task", retained=False))


async def test_without_our_announcement_a_flagged_task_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retain_flag, "PATIENCE_S", 0.01)
    flag = RetainFlag(BOOT)
    await flag.on_status(status(boot="b" * 16, retained=True))
    await flag.on_status(status(online=False, retained=True))
    await flag.on_status(arrival(b"x", retained=True))
    await flag.on_status(arrival(b"", retained=True))
    assert await flag.is_old(arrival(b"task", retained=True))
    assert not await flag.is_old(arrival(b"task", retained=False))
