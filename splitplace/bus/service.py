"""The frame of every part of the system: its connections, its status on the broker, its background work."""

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import ValidationError

from splitplace.bus.background import Alarm, BackgroundTasks, PeriodicWork, now_ms
from splitplace.bus.connection import RECEIVE_MAXIMUM, Bus, RawReceived, Statistics, parse
from splitplace.bus.exchange import Exchange
from splitplace.bus.figures import REPEAT_PERIOD_S, Figures
from splitplace.bus.identity import NO_SESSION, Session
from splitplace.bus.namesake import ANSWER_PAUSE_MS, NamesakeError, Rivals, Status, Verdict, check_name
from splitplace.bus.seldom import SeldomWarnings
from splitplace.bus.settings import Settings
from splitplace.bus.supervisor import ALIVE_EVERY_S, Supervisor
from splitplace.bus.upkeep import REPAIR_PAUSE_MS
from splitplace.messages.base import MAX_TEXT
from splitplace.messages.cluster import NodeStatus, ServiceStatus
from splitplace.messages.frames import FrameError
from splitplace.messages.metrics import OFFLINE, ONLINE, ServiceMetrics
from splitplace.messages.topics import (
    AVAILABILITY_NODE,
    AVAILABILITY_SERVICE,
    METRICS_SERVICE,
    NODE_STATUS,
    SERVICE_STATUS,
    Topic,
)
from splitplace.storage.client_secret import draw_secret

__all__ = ["Health", "Service", "new_boot_id", "now_ms", "software_version"]

log = logging.getLogger(__name__)

Action = Callable[[], Coroutine[Any, Any, None]]

_STATUS_TOPICS: Mapping[type[Status], tuple[Topic[Any], Topic[Any]]] = {
    ServiceStatus: (SERVICE_STATUS, AVAILABILITY_SERVICE),
    NodeStatus: (NODE_STATUS, AVAILABILITY_NODE),
}
"""Where a part says whether it is online: as a message for the others, and as bare text."""

METRICS_PERIOD_S = 2.0
_GOODBYE_S = 1.0
_LATE_MS = 10_000.0


def software_version() -> str:
    """Version of the installed package."""
    try:
        return version("splitplace")
    except PackageNotFoundError:  # run from a folder without installing
        return "unknown"


def new_boot_id() -> str:
    """Return a random id for this start of a process."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service can do its work at this moment."""

    is_connected: bool
    """Whether all its connections to the broker are up."""
    late_ms: float
    """Delay of the periodic work that is furthest behind; 0 while all of it is on time."""
    trouble: str = ""
    """What it cannot do, and why; empty if all is well."""


class Service:
    """Connections, status, and background work of one part of the system.

    Make one, subscribe on its `bus`, add periodic work, then `run` it:

        service = Service("placer", settings)
        service.bus.subscribe(JOB_DECIDED, self.on_decided)
        service.every(5.0, state.save)
        await service.run()

    While it runs, a retained status says that it is online, and so does its availability, as bare text. When
    the process dies, the broker says the opposite; `run` says so itself on its way out, with the same boot
    id. An error in background work ends `run`, so that a supervisor starts the process again; an error in a
    handler costs only its message.

    Client ids end with a secret, new at every start, so that nobody can take a connection over. A connection
    whose session outlives the process is given one that was kept. Of two services with one name, one ends
    with a NamesakeError.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        status: Status | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        """A service that is not connected yet.

        Args:
            name: unique in the system; the MQTT client ids follow from it.
            settings: where the broker is.
            status: what the broker publishes when the process dies. By default the `ServiceStatus` of this
                name; then metrics of its connections are published, too.
            exchange: hands messages over to services in this process, if there are any.
        """
        self.name = name
        self.settings = settings
        self._offline = status or ServiceStatus(
            service=name, boot=new_boot_id(), online=False, software=software_version()
        )
        self._topic, availability = _STATUS_TOPICS[type(self._offline)]
        will = (self._topic.name_of(self._offline), self._topic.encoded(self._offline))
        self._availability = availability.name_of(self._offline)
        self._wills: dict[str, Bus] = {}
        """Topics on which the broker says `offline` when a connection breaks; a connection has one will."""
        self._secret = draw_secret()
        self._rivals = Rivals(self._offline.boot)
        self._announced_ms = -math.inf
        self._announcement_due_ms = math.inf
        self._warnings = SeldomWarnings(log)
        self._announcing = Alarm(self._announce_again)
        self._alarms: list[Alarm] = [self._announcing]
        self._losses = SeldomWarnings(log)
        self._exchange = exchange
        self.bus = Bus(
            settings,
            f"splitplace-{name}",
            secret=self._secret,
            will=will,
            losses=self._losses,
            exchange=exchange,
        )
        """The connection for control messages."""
        self.figures = Figures(self.bus)
        """What it tells dashboards; gone with the process."""
        self._connections = [self.bus]
        self._background = BackgroundTasks()
        self._periodic: list[PeriodicWork] = []
        self._introductions: list[Action] = []
        self._troubles: list[Callable[[], str]] = []
        self._is_leaving = False
        self.bus.on_connect(self._announce)
        (level,) = self._topic.parameters
        self.bus.subscribe_raw(self._topic, self._on_own_status, **{level: getattr(self._offline, level)})
        if status is None:
            self.every(METRICS_PERIOD_S, self._publish_metrics, online_only=True)
            self.every(REPEAT_PERIOD_S, self.figures.repeat, online_only=True)
            self.on_connect(self.figures.publish_all_again)
        self._supervisor = Supervisor.found()
        if self._supervisor.feed_every_s is not None:
            self.every(self._supervisor.feed_every_s, self._feed_watchdog)
        if self._supervisor.alive_file is not None:
            self.every(ALIVE_EVERY_S, self._say_alive)

    # --- before it runs ----------------------------------------------------------------------------

    def connection(
        self,
        purpose: str,
        *,
        session: Session = NO_SESSION,
        secret: str | None = None,
        receive_maximum: int = RECEIVE_MAXIMUM,
        availability: str | None = None,
    ) -> Bus:
        """Add a connection, so that control messages do not wait behind bulk data.

        The service is announced as online when all its connections are up.

        Args:
            purpose: unique among the connections of this service.
            session: what the broker keeps while the connection is away.
            secret: end of the client id, for a session that outlives the process; by default a new one.
            receive_maximum: unacknowledged messages that the broker may send.
            availability: topic where the broker says `offline` when it breaks. By default that of this part
                on the first connection.
        """
        name = availability or (self._availability if self._availability not in self._wills else None)
        bus = Bus(
            self.settings,
            f"splitplace-{self.name}:{purpose}",  # no part may have a colon in its name
            secret=secret or self._secret,
            will=None if name is None else (name, AVAILABILITY_SERVICE.encoded(OFFLINE)),
            session=session,
            receive_maximum=receive_maximum,
            losses=self._losses,
            exchange=self._exchange,
        )
        self._connections.append(bus)
        if name is not None:
            self._wills[name] = bus
        if name == self._availability:
            bus.on_connect(self._say_available)
        return bus

    def on_connect(self, action: Action) -> None:
        """Do this after every (re)connect, before the service is announced as online: all connections are up.

        Publish again what is retained: the broker may be a new one.
        """
        self._introductions.append(action)

    def every(self, period_s: float, action: Action, *, online_only: bool = False) -> None:
        """Do this at once and after each period; `online_only` waits for the broker before each round."""
        self._periodic.append(PeriodicWork(period_s, action, self.connected if online_only else None))

    def reports(self, trouble: Callable[[], str]) -> None:
        """Tell in every sign of life what this returns: a sentence about what is wrong, or nothing."""
        self._troubles.append(trouble)

    def alarm(self, action: Callable[[], None]) -> Alarm:
        """Return an alarm that calls this whenever it is due."""
        alarm = Alarm(action)
        self._alarms.append(alarm)
        return alarm

    # --- at any time -------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine in the background. The service ends if it fails."""
        return self._background.spawn(work, name)

    async def connected(self) -> None:
        """Wait until all connections are up."""
        for bus in self._connections:
            await bus.connected()

    @property
    def boot(self) -> str:
        """The id of this start, as its status tells it."""
        return self._offline.boot

    @property
    def health(self) -> Health:
        """Whether it is connected, how late its periodic work is, and what it says of itself."""
        late_ms = max((work.late_ms for work in self._periodic), default=0.0)
        late = f"its periodic work is {late_ms / 1000:.0f} s late" if late_ms > _LATE_MS else ""
        troubles = (late, *(trouble() for trouble in self._troubles))
        return Health(
            is_connected=all(bus.is_connected for bus in self._connections),
            late_ms=late_ms,
            trouble="; ".join(filter(None, troubles))[:MAX_TEXT],
        )

    @property
    def statistics(self) -> Statistics:
        """Counters of all connections, added up."""
        return sum((bus.statistics for bus in self._connections), Statistics())

    # --- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be online until cancelled.

        Raises:
            NamesakeError: another part of this name lives.
            Exception: what a background task raised.
        """
        if self._availability not in self._wills:
            self.connection("availability")
        await self._check_name()
        async with contextlib.AsyncExitStack() as stack:
            for bus in reversed(self._connections):
                await stack.enter_async_context(bus)
                self.spawn(bus.failed(), f"{self.name}: connection")
            for work in self._periodic:
                self.spawn(work.run(), work.name)
            for alarm in self._alarms:
                self.spawn(alarm.run(), alarm.name)
            try:
                await self._background.failed()
            finally:
                await self._leave()

    async def _check_name(self) -> None:
        """Raise NamesakeError if another part has our name."""
        identifier = f"splitplace-{self.name}:name"
        checks = BackgroundTasks()
        check = checks.spawn(check_name(self.settings, identifier, self._offline), "looking for namesakes")
        try:
            await asyncio.wait({check})
        finally:  # a cancellation may be lost inside aiomqtt: `stop` repeats it
            await checks.stop()
        check.result()

    async def _announce(self) -> None:
        await self.connected()  # others may send anything as soon as they hear of it
        for introduce in self._introductions:
            await introduce()
        if not self._is_leaving:
            await self._publish_online()
            self._supervisor.ready(f"online at {self.settings.broker}")
            log.info(
                "%s is online: broker %s, version %s", self.name, self.settings.broker, software_version()
            )

    async def _publish_online(self) -> None:
        self._announced_ms = now_ms()
        online = {"online": True, "settled": self._rivals.announced(self._announced_ms)}
        await self.bus.publish(self._topic, self._offline.model_copy(update=online))
        await self._say_available()

    async def _say_available(self) -> None:
        await self.connected()
        if self._announced_ms > -math.inf and not self._is_leaving:
            await self.say(self._availability, online=True)

    async def say(self, availability: str, *, online: bool) -> None:
        """Publish an availability, on the connection whose will takes it back."""
        payload = AVAILABILITY_SERVICE.encoded(ONLINE if online else OFFLINE)
        await self._wills[availability].publish_raw(availability, payload, qos=1, retain=True)

    def _announce_soon(self, pause_ms: float) -> None:
        """Announce ourselves again, this long after the last time; what is due before that stays so."""
        if not self._is_leaving:
            due_ms = max(now_ms(), self._announced_ms + pause_ms)
            self._announcement_due_ms = min(due_ms, self._announcement_due_ms)
            self._announcing.set(self._announcement_due_ms)

    def _announce_again(self) -> None:
        self._announcement_due_ms = math.inf
        if self.bus.is_connected and not self._is_leaving:
            self.spawn(self._publish_online(), "announcement")

    async def _on_own_status(self, received: RawReceived) -> None:
        """Look for other parts of our name (bus/namesake.py), and replace what hides that we are online."""
        if received.retained or self._announced_ms == -math.inf:
            return
        name = self._topic.name_of(self._offline)
        try:
            status: Status = parse(self._topic, name, received.payload).message
        except (ValidationError, FrameError):
            self.bus.statistics.rejected += bool(received.payload)
            found = "an unreadable message" if received.payload else "our status deleted"
            self._warnings.warn(name, "%s: %s; announcing ourselves again", name, found)
            self._announce_soon(REPAIR_PAUSE_MS)
            return
        verdict = self._rivals.heard(status, now_ms())
        if verdict is Verdict.GIVE_WAY:
            self.spawn(self._give_way(), "name")
        elif verdict is Verdict.ANSWER:
            self._announce_soon(ANSWER_PAUSE_MS)

    async def _give_way(self) -> None:
        raise NamesakeError(self.settings, self._offline)

    async def _leave(self) -> None:
        self._is_leaving = True
        await self._background.stop()
        if self.bus.is_connected:
            self.figures.clear_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    for availability in self._wills:
                        await self.say(availability, online=False)
                    await self.bus.publish(self._topic, self._offline)
        log.info("%s is offline", self.name)

    async def _feed_watchdog(self) -> None:
        """Tell systemd that there is progress: the loop turns, and no periodic work hangs.

        While the broker is away, work that waits for it is not late.
        """
        health, limit_s = self.health, self._supervisor.watchdog_s or math.inf
        if not health.is_connected or health.late_ms < 1000 * limit_s:
            self._supervisor.feed()

    async def _say_alive(self) -> None:
        """Touch the file of the health check while the part is online and no periodic work hangs."""
        is_online = self.health.is_connected and self._announced_ms > -math.inf and not self._is_leaving
        if is_online and self.health.late_ms < _LATE_MS:
            await asyncio.to_thread(self._supervisor.alive)

    async def _publish_metrics(self) -> None:
        seen = self.statistics
        metrics = ServiceMetrics(
            service=self.name,
            received=seen.received,
            rejected=seen.rejected,
            overflowed=seen.overflowed,
            reconnects=seen.reconnects,
            refused=seen.refused,
            undeliverable=seen.undeliverable,
            trouble=self.health.trouble,
        )
        self.figures.publish(METRICS_SERVICE, metrics)
