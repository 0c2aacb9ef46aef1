"""What the gateway knows of applications: which take tasks, and which were removed."""

import pytest

from splitplace.bus.incoming import Received
from splitplace.messages.application import Application
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
    made = Catalogue(lambda: True, lambda: 1)
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


OTHER = APP.model_copy(update={"name": "other"})


class Link:
    """A connection that comes and goes."""

    def __init__(self) -> None:
        self.is_up = False
        self.made = 0
        self.catalogue = Catalogue(lambda: self.is_up, lambda: self.made)

    def entries(self, *applications: Application) -> None:
        for each in applications:
            self.catalogue.on_entry(Received({}, each, memoryview(b"")))

    async def connect(self, *kept: Application, at_once: bool = True) -> None:
        """Connect to a broker that keeps these entries: they may come before the connection counts."""
        self.entries(*(kept if at_once else kept[:1]))
        self.is_up = True
        self.made += 1
        self.entries(*(() if at_once else kept[1:]))
        await self.catalogue.connected()

    def takes(self) -> list[str]:
        return [each.name for each in (APP, OTHER) if self.catalogue.current(each.name) is not None]


async def _away(clock: list[float]) -> Link:
    """A catalogue of two, whose connection has just ended."""
    link = Link()
    await link.connect(APP, OTHER)
    clock[0] += 60_000
    assert link.takes() == ["app", "other"]
    link.is_up = False
    clock[0] += 60_000
    return link


async def test_what_was_removed_while_the_gateway_was_away_takes_no_tasks_afterwards(
    clock: list[float],
) -> None:
    link = await _away(clock)
    assert link.takes() == ["app", "other"]
    await link.connect(OTHER)
    clock[0] += HEALED_MS
    assert link.takes() == ["other"]
    with pytest.raises(TaskRefusedError, match="no application 'app'; there is: other"):
        await link.catalogue.find("app")
    link.entries(APP)
    assert link.takes() == ["app", "other"]


async def test_a_new_broker_without_entries_removes_nothing_until_the_splitter_is_back(
    clock: list[float],
) -> None:
    link = await _away(clock)
    await link.connect()
    clock[0] += 60_000
    assert link.takes() == ["app", "other"]
    link.entries(APP)
    clock[0] += HEALED_MS - 1
    link.entries(OTHER)
    clock[0] += 60_000
    assert link.takes() == ["app", "other"]


async def test_each_connection_is_judged_by_itself(clock: list[float]) -> None:
    link = await _away(clock)
    for at_once in (True, False, True):
        await link.connect(APP, OTHER, at_once=at_once)
        clock[0] += 60_000
        assert link.takes() == ["app", "other"]
        link.is_up = False
    await link.connect(APP)
    clock[0] += HEALED_MS
    assert link.takes() == ["app"]
