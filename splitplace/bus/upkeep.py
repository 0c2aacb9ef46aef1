"""Retained messages that a part keeps right: whoever deletes or overwrites one, it is published again."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from splitplace.bus.background import now_ms
from splitplace.bus.incoming import RawReceived
from splitplace.bus.seldom import SeldomWarnings
from splitplace.messages.base import Message
from splitplace.messages.topics import Topic

if TYPE_CHECKING:
    from splitplace.bus.service import Service

log = logging.getLogger(__name__)

REPAIR_PAUSE_MS = 1000.0
"""Time between two repairs: parts that overwrite each other, or a flood, cost one publication a second."""

MAX_REMEMBERED = 1000
"""Topics that are noted between two repairs; the others are left until they are heard again."""


class Differences:
    """What others left on our topics in place of what we published. Pure."""

    def __init__(self) -> None:
        self._wanted: dict[str, bytes] | None = None
        """None before the first publication: it is not known yet what is a stray."""
        self._changed: dict[str, None] = {}

    @property
    def are_any(self) -> bool:
        """Whether there is something to repair."""
        return self._wanted is not None and bool(self._changed)

    def published(self, wanted: Mapping[str, bytes]) -> None:
        """Note that these payloads are about to be published: they replace what was heard before."""
        for name in set(self._wanted or {}).difference(wanted):  # published here before: strays from now on
            self._changed[name] = None
        self._wanted = dict(wanted)
        for name in wanted:
            self._changed.pop(name, None)

    def heard(self, name: str, payload: bytes) -> None:
        """Note what stands on a topic now; an empty payload means nothing."""
        if payload == (self._wanted or {}).get(name, b""):
            self._changed.pop(name, None)
        elif len(self._changed) < MAX_REMEMBERED:
            self._changed[name] = None

    def take(self, *, clear: bool) -> dict[str, bytes]:
        """Return what to publish, by topic, and forget it: empty payloads for strays, if they are cleared."""
        wanted = self._wanted or {}
        due = {name: wanted.get(name, b"") for name in self._changed if clear or name in wanted}
        self._changed.clear()
        return due


class Upkeep:
    """Publishes the retained messages of a topic, and again whatever others change of them.

    Give `publish` to `Service.on_connect`. A stray is a message on the topic that was not published here.
    """

    def __init__(
        self,
        service: "Service",
        topic: Topic[Any],
        *,
        clears_strays: Callable[[], bool] = lambda: False,
        **parameters: Any,  # noqa: ANN401 - texts; else mypy takes them for other arguments
    ) -> None:
        """Watch a topic that nobody else may publish on.

        Args:
            service: does not run yet.
            topic: an entry of the table that is retained.
            clears_strays: asked when there are some.
            parameters: levels of the topic that are fixed.
        """
        self._bus, self._topic = service.bus, topic
        self._clears_strays = clears_strays
        self._differences = Differences()
        self._repaired_ms = -math.inf
        self._warnings = SeldomWarnings(log)
        self._alarm = service.alarm(self._repair)
        service.bus.subscribe_raw(topic, self._on_own_topic, **parameters)

    async def publish(self, messages: Mapping[str, Message]) -> None:
        """Publish these, by topic without prefix, and from now on keep them right."""
        wanted = {name: message.model_dump_json().encode() for name, message in messages.items()}
        self._differences.published(wanted)
        for name, payload in wanted.items():
            await self._bus.publish_raw(name, payload, qos=self._topic.qos, retain=True)
        self._set_alarm()

    async def _on_own_topic(self, received: RawReceived) -> None:
        self._differences.heard(self._topic.at(**received.parameters), received.payload)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._differences.are_any:
            self._alarm.set(max(now_ms(), self._repaired_ms + REPAIR_PAUSE_MS))

    def _repair(self) -> None:
        if not self._bus.is_connected:  # the next connection brings what stands there, and `publish`
            return
        self._repaired_ms = now_ms()
        for name, payload in self._differences.take(clear=self._clears_strays()).items():
            done = "published it again" if payload else "cleared it"
            self._warnings.warn(name, "%s: not what this part published; %s", name, done)
            self._bus.spawn_publication(
                self._bus.publish_raw(name, payload, qos=self._topic.qos, retain=True)
            )
