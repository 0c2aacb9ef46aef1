"""What the gateway knows of applications: which take tasks, and which were removed."""

import pytest

from splitplace.bus.incoming import Received
from splitplace.services.gateway import catalogue
from splitplace.services.gateway.catalogue import HEALED_MS, SETTLE_MS, Catalogue
from splitplace.services.gateway.refusals import TaskRefusedError
from tests.support.outputs import logits_application

APP = logits_application()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(catalogue, "now_ms", lambda: now[0])
    return now


def filled() -> Catalogue:
    made = Catalogue(lambda: True)
    made.on_entry(Received({}, APP, memoryview(b"")))
    return made


async def test_an_entry_that_stays_cleared_is_a_removed_application(clock: list[float]) -> None:
    made = filled()
    clock[0] = SETTLE_MS
    made.on_cleared({"application": APP.name})
    clock[0] += HEALED_MS - 1
    assert made.current(APP.name) == await made.find(APP.name) == APP
    clock[0] += 1
    assert made.current(APP.name) is None
    with pytest.raises(TaskRefusedError, match="no application") as refusal:
        await made.find(APP.name)
    assert refusal.value.kind == "unknown-application"
    assert made.applications[APP.name] == APP  # for tasks that are under way
    made.on_entry(Received({}, APP, memoryview(b"")))
    assert await made.find(APP.name) == APP


def test_an_entry_that_is_published_again_was_not_removed(clock: list[float]) -> None:
    made = filled()
    for _ in range(3):
        made.on_cleared({"application": APP.name})
        clock[0] += HEALED_MS - 1
        made.on_entry(Received({}, APP, memoryview(b"")))
    clock[0] += HEALED_MS
    assert made.current(APP.name) == APP
    made.on_cleared({"application": "another"})
    assert list(made.applications) == [APP.name]
