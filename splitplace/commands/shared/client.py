"""A short-lived MQTT client for subcommands that look at a system or ask it something."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import ValidationError

from splitplace.bus.client import BrokerClient
from splitplace.bus.connection import RECEIVE_MAXIMUM, parse
from splitplace.bus.hints import hint
from splitplace.bus.identity import NO_SESSION, ClientIdentity
from splitplace.bus.keepalive import Keepalive
from splitplace.bus.publication import Publication
from splitplace.bus.service import METRICS_PERIOD_S
from splitplace.bus.settings import Settings
from splitplace.commands.shared.options import explain
from splitplace.errors import NotAllowedError, UnreachableError
from splitplace.messages.base import Message
from splitplace.messages.cluster import ClusterState
from splitplace.messages.cluster_parts import ClusterAssembly
from splitplace.messages.frames import FrameError
from splitplace.messages.topics import CLUSTER_MEMBERS, CLUSTER_NODE, Topic
from splitplace.storage.client_secret import draw_secret

MessageT = TypeVar("MessageT", bound=Message)

CONNECT_S = 5.0
_KEEPALIVE_S = 60
_QUIET_S = 0.3
_PATIENCE_S = 2.0
_REFUSALS = {0x86, 0x87, 0x8A}  # MQTT 5, 3.2.2.2: wrong name or password, not authorised, banned
SPEAKS_WITHIN_S = 2 * METRICS_PERIOD_S + 1.0
"""A living service has published its metrics by then, even if it was late once."""


@asynccontextmanager
async def connected(settings: Settings, purpose: str) -> AsyncIterator[BrokerClient]:
    """Connect once, with a client id of its own.

    Raises:
        NotAllowedError: The broker does not let this user in.
        UnreachableError: It cannot be reached, ended the connection, or refused a publication inside.
    """
    identity = ClientIdentity(
        settings,
        f"splitplace-{purpose}",
        draw_secret(),
        will=None,
        session=NO_SESSION,
        receive_maximum=RECEIVE_MAXIMUM,
        keepalive=Keepalive(_KEEPALIVE_S),
        forgotten_after_s=CONNECT_S,
        manual_ack=False,
    )
    try:
        async with identity.connected(CONNECT_S) as client:
            yield client
    except aiomqtt.MqttError as error:
        code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
        is_refused = isinstance(code, ReasonCode) and code.value in _REFUSALS
        raise (NotAllowedError if is_refused else UnreachableError)(
            f"broker {settings.broker}: {error} ({hint(error, settings.broker)})"
        ) from error


async def subscribe(client: aiomqtt.Client, settings: Settings, name: str, qos: int = 1) -> bool:
    """Subscribe to topics below the prefix. Return whether the broker lets this user read them."""
    codes = await client.subscribe(f"{settings.prefix}/{name}", qos=qos)
    return not any(isinstance(code, ReasonCode) and code.is_failure for code in codes)


def may_not_read(settings: Settings, names: Iterable[str]) -> str:
    """Say that this user may not read topics, as the beginning of a sentence."""
    return f"{_who(settings)} may not read {', '.join(sorted(names))}"


def may_not_write(settings: Settings, name: str) -> str:
    """Say that this user may not write a topic, as the beginning of a sentence."""
    return f"{_who(settings)} may not write {name}"


def _who(settings: Settings) -> str:
    return "this user" if settings.username is None else f"this user ({settings.username})"


async def retained(
    client: aiomqtt.Client, settings: Settings, topics: Iterable[Topic[Any]], **levels: str
) -> "Seen":
    """Return everything that is retained on some topics. Waits for silence, at most two seconds.

    The subscriptions stay. `levels` fix levels of the topics; the others are wildcards.
    """
    seen = Seen(settings.prefix)
    for topic in topics:
        name = topic.filter if not levels else topic.at(**(dict.fromkeys(topic.parameters, "+") | levels))
        if not await subscribe(client, settings, name):
            seen.unreadable.append(name)
    try:
        async with asyncio.timeout(_PATIENCE_S) as patience:
            limit = patience.when()
            patience.reschedule(asyncio.get_running_loop().time() + 2 * _QUIET_S)
            async for message in client.messages:
                seen.add(message)
                quiet = asyncio.get_running_loop().time() + _QUIET_S
                patience.reschedule(min(quiet, limit) if limit is not None else quiet)
    except TimeoutError:
        pass
    return seen


async def wait_for(client: aiomqtt.Client, seen: "Seen", is_enough: Callable[["Seen"], bool]) -> bool:
    """Take in messages until there are enough, for at most the time in which every living part speaks twice.

    Return whether there are enough.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SPEAKS_WITHIN_S):
            while not is_enough(seen):
                seen.add(await anext(client.messages))
    return is_enough(seen)


class Seen:
    """The last payload on every topic, parsed on demand."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._payloads: dict[str, bytes] = {}
        self._fresh: set[str] = set()
        self.unreadable: list[str] = []
        """Filters that the broker does not let this user read."""

    def add(self, message: aiomqtt.Message) -> None:
        """Keep the payload of a message."""
        name = message.topic.value.removeprefix(f"{self._prefix}/")
        if not message.retain:
            self._fresh.add(name)
        if message.payload:
            self._payloads[name] = message.payload
        else:  # an empty payload clears what was retained
            self._payloads.pop(name, None)

    def is_fresh(self, name: str) -> bool:
        """Whether a message came on this topic while we listened: a retained one may outlive its sender."""
        return name in self._fresh

    def messages(self, topic: Topic[MessageT]) -> Iterator[MessageT]:
        """Return the valid messages of a topic, ordered by its name; skip the others."""
        for name in sorted(self._payloads):
            message = read(topic, name, self._payloads[name])
            if message is not None:
                yield message

    def not_understood(self, topic: Topic[Any]) -> Iterator[tuple[Mapping[str, str], bytes, str]]:
        """Return parameters and payload of each message on a topic that is not valid, and why."""
        why = self.broken((topic,))
        for name in sorted(why):
            yield topic.match(name) or {}, self._payloads[name], why[name]

    def broken(self, topics: Iterable[Topic[Any]]) -> Mapping[str, str]:
        """Return the topics with messages that are not valid, and why."""
        found = {}
        for topic in topics:
            for name, payload in self._payloads.items():
                if topic.match(name) is not None:
                    try:
                        parse(topic, name, payload)
                    except ValidationError as error:
                        found[name] = explain(error)
                    except FrameError as error:
                        found[name] = str(error)
        return found


def cluster_seen(seen: Seen) -> ClusterState | None:
    """Return the state of the cluster by all that was seen; None if the resource monitor said nothing."""
    assembly = ClusterAssembly()
    for node in seen.messages(CLUSTER_NODE):
        assembly.take(node)
    state = None
    for members in seen.messages(CLUSTER_MEMBERS):
        state = assembly.take(members) or assembly.take(members)  # the second time it waits for nobody
    return state


def read(topic: Topic[MessageT], name: str, payload: bytes) -> MessageT | None:
    """Return the message, or None if it belongs to another topic or is not valid."""
    if topic.match(name) is None:
        return None
    try:
        return parse(topic, name, payload).message
    except (ValidationError, FrameError):
        return None


async def clear_retained(settings: Settings) -> int:
    """Remove everything that is retained below the prefix. Return the number of topics.

    For a system that is gone for good, on a broker that others use too.
    """
    found: set[str] = set()
    async with connected(settings, "clear") as client:
        await client.subscribe(f"{settings.prefix}/#", qos=1)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                async for message in client.messages:
                    if message.retain:
                        found.add(message.topic.value)
        except TimeoutError:
            pass
        await client.unsubscribe(f"{settings.prefix}/#")
        for topic in found:
            await client.publish_once(Publication(topic, b"", retain=True))
    return len(found)
