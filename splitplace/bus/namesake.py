"""Two parts of one name: recognise them, and let exactly one go on.

Client ids are secret, so the broker does not notice two parts of one name. They find each other on the topic
of their retained status, as two hosts with one IP address do (RFC 5227):

- A part that is about to start looks at the status. If it says online, the part asks whether that one still
  lives: it publishes its own status, offline. Whoever is online answers by announcing itself again.
- A part that is online answers likewise whenever it hears another part speak in its name. So two parts that
  are online hear each other again and again, until one ends: the newcomer, or of two that started at the
  same moment the one with the greater boot id. Statuses say who was there before (`settled`).

What a dead part left behind (a retained status, a late last will, a message that was on its way) never
answers, so it keeps nobody away.
"""

import asyncio
import math
from collections import OrderedDict
from enum import Enum, auto
from typing import Any

import aiomqtt
from pydantic import ValidationError

from splitplace.bus.background import now_ms
from splitplace.bus.client import BrokerClient
from splitplace.bus.identity import NO_SESSION, ClientIdentity
from splitplace.bus.incoming import parse
from splitplace.bus.keepalive import Keepalive
from splitplace.bus.publication import Publication
from splitplace.bus.reconnect import FIRST_PATIENCE_S as _CONNECT_S
from splitplace.bus.settings import Settings
from splitplace.errors import ConfigurationError
from splitplace.messages.cluster import NodeStatus, ServiceStatus
from splitplace.messages.frames import FrameError
from splitplace.messages.topics import NODE_STATUS, SERVICE_STATUS, Topic
from splitplace.storage.client_secret import draw_secret

Status = ServiceStatus | NodeStatus

ANSWERS = 3
"""How often another part must have spoken, each time after us, before we believe that it lives."""

ANSWER_PAUSE_MS = 200.0
"""Time between two of our answers."""

SETTLED_AFTER_MS = 5_000.0
"""Time online without a living namesake, after which a part does not give way to newcomers."""

_MEMORY_MS = 30_000.0
_MAX_REMEMBERED = 16
_QUESTIONS = 2
_CHECK_S = 15.0
"""Time for all questions. A broker that stands still must not keep a part from starting."""
_PATIENCE_S = 0.2
_ROUND_TRIPS = 4
_LONGEST_PATIENCE_S = 3.0
_RECEIVE_MAXIMUM = 16
_KEEPALIVE_S = 10


class NamesakeError(ConfigurationError):
    """Another part of the system has this name."""

    def __init__(self, settings: Settings, status: Status) -> None:
        """Say what to do, for a part with this status."""
        where = f"{settings.broker}, topics below {settings.prefix}"
        super().__init__(
            f"another node on {where} is called {status.node}: choose another name with --node"
            if isinstance(status, NodeStatus)
            else f"another {status.service} runs on {where}: end one of the two, or give this system another "
            "--prefix"
        )


class Verdict(Enum):
    """What to do about a status that was heard."""

    IGNORE = auto()
    ANSWER = auto()
    """Announce ourselves again."""
    GIVE_WAY = auto()
    """End: a namesake lives, and goes on."""


class Rivals:
    """What was heard in our name from others. Pure: times are arguments."""

    def __init__(self, boot: str) -> None:
        """Know nobody yet.

        Args:
            boot: our own boot id.
        """
        self._boot = boot
        self._alone_since_ms = math.inf
        self._is_settled = False
        self._heard: OrderedDict[str, list[float]] = OrderedDict()

    def announced(self, now_ms: float) -> bool:
        """Note that we announce ourselves. Return whether we are settled."""
        self._alone_since_ms = min(self._alone_since_ms, now_ms)
        self._is_settled |= now_ms - self._alone_since_ms >= SETTLED_AFTER_MS
        return self._is_settled

    def heard(self, status: Status, now_ms: float) -> Verdict:
        """Note a status that somebody has just published in our name, after we were announced."""
        boot = status.boot
        if boot == self._boot:  # our own last will may come later than we came back
            return Verdict.IGNORE if status.online else Verdict.ANSWER
        if not status.online:  # a question, a goodbye, or the last will of an earlier process
            return Verdict.ANSWER
        is_settled = self.announced(now_ms)
        self._alone_since_ms = now_ms
        times = [at_ms for at_ms in self._heard.pop(boot, []) if now_ms - at_ms < _MEMORY_MS]
        self._heard[boot] = [*times[-ANSWERS:], now_ms]
        if len(self._heard) > _MAX_REMEMBERED:
            self._heard.popitem(last=False)
        is_before_us = (not status.settled, boot) < (not is_settled, self._boot)
        if len(self._heard[boot]) >= ANSWERS and is_before_us:
            return Verdict.GIVE_WAY
        return Verdict.ANSWER


async def check_name(settings: Settings, identifier: str, status: Status) -> None:
    """Ask whether a living part has our name. Without a broker, return at once or soon.

    Args:
        settings: where the broker is.
        identifier: beginning of the client id.
        status: ours, offline.

    Raises:
        NamesakeError: there is one.
    """
    identity = ClientIdentity(
        settings,
        identifier,
        draw_secret(),
        None,
        NO_SESSION,
        _RECEIVE_MAXIMUM,
        Keepalive(_KEEPALIVE_S),
        _CONNECT_S,
    )
    try:
        async with asyncio.timeout(_CHECK_S), identity.connected(_CONNECT_S) as client:
            is_taken = await _is_taken(client, settings, status)
    except (aiomqtt.MqttError, OSError, ValueError):
        return  # the part itself says so, and tries again
    if is_taken:
        raise NamesakeError(settings, status)


async def _is_taken(client: BrokerClient, settings: Settings, status: Status) -> bool:
    topic: Topic[Any] = NODE_STATUS if isinstance(status, NodeStatus) else SERVICE_STATUS
    name = topic.name_of(status)
    full_name = f"{settings.prefix}/{name}"
    began_ms = now_ms()
    await client.subscribe(full_name, qos=1)
    await client.subscribe(full_name, qos=1)  # answered after what is retained was sent
    round_trip_s = (now_ms() - began_ms) / 1000
    patience_s = min(_PATIENCE_S + _ROUND_TRIPS * round_trip_s, _LONGEST_PATIENCE_S)
    rival = await _hear(client, topic, name, status, patience_s / 2, retained=True)
    for _ in range(_QUESTIONS):
        if rival is None:
            return False
        payload = status.model_dump_json().encode()
        await client.publish_once(Publication(full_name, payload))
        rival = await _hear(client, topic, name, status, patience_s, retained=False)
    return rival is not None


async def _hear(
    client: BrokerClient, topic: Topic[Any], name: str, own: Status, patience_s: float, *, retained: bool
) -> str | None:
    """Return the boot id of another part that says online; None if none does in time."""
    try:
        async with asyncio.timeout(patience_s):
            async for message in client.messages:
                if (retained or not message.retain) and (boot := _rival(topic, name, message, own)):
                    return boot
    except TimeoutError:  # of a busy process: the message may be there
        while len(client.messages):
            message = await anext(client.messages)
            if (retained or not message.retain) and (boot := _rival(topic, name, message, own)):
                return boot
    return None


def _rival(topic: Topic[Any], name: str, message: aiomqtt.Message, own: Status) -> str | None:
    try:
        heard: Status = parse(topic, name, message.payload).message
    except (ValidationError, FrameError):
        return None
    return heard.boot if heard.boot != own.boot and heard.online else None
