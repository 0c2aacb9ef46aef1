"""Brings publications to the broker, over as many connections as that takes."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import aiomqtt

from splitplace.bus.client import BrokerClient
from splitplace.bus.publication import ConnectionLostError, Publication, RefusedError
from splitplace.bus.seldom import SeldomWarnings
from splitplace.bus.statistics import Statistics

log = logging.getLogger(__name__)

MAX_STRIKES = 5
"""Connections that one publication may cost. A broker that is restarted a few times in a row ends fewer."""

_AT_ONCE_S = 1.0
"""A broker that ends the connection this soon after a publication may mean that publication."""

_REPEAT_AFTER_S = 0.05


class Publisher:
    """Repeats what was not acknowledged, and gives up what the broker will never take.

    The first attempt needs no task and no timer of its own: `Bus` calls `BrokerClient.forget` now and then.

    A publication that was under way when the broker ended the connection is a suspect. Suspects are repeated
    one at a time, so that the one that the broker cannot bear is known, and the others arrive.
    """

    def __init__(
        self,
        *,
        client: Callable[[], Awaitable[BrokerClient]],
        client_now: Callable[[], BrokerClient | None],
        spawn: Callable[[Coroutine[Any, Any, object]], None],
        statistics: Statistics,
        warnings: SeldomWarnings,
        forgotten_after_s: float,
    ) -> None:
        """A publisher of one connection.

        Args:
            client: waits for the broker and returns the client that is connected.
            client_now: returns the client that is connected now; None if none is.
            spawn: runs a publication in the background.
            statistics: counters to add to.
            warnings: where refusals are logged.
            forgotten_after_s: without an acknowledgement for this long, a publication is repeated.
        """
        self._client = client
        self._client_now = client_now
        self._spawn = spawn
        self._statistics = statistics
        self._warnings = warnings
        self._forgotten_after_s = forgotten_after_s
        self._suspects = asyncio.Lock()

    def post(self, publication: Publication, refused: Callable[[], None] | None = None) -> None:
        """Publish without waiting. `refused` is called if the broker does not take it."""
        if publication.qos == 0:
            self._toss(publication)
            return

        async def later(strikes: int = 0) -> None:
            if not await self._repeat(publication, strikes) and refused is not None:
                refused()

        client, sent_s = self._client_now(), _now_s()

        def ended(error: Exception | None) -> None:
            if error is None:
                self._statistics.sent_bytes += len(publication.payload)
            elif isinstance(error, RefusedError):
                self._note_refusal(publication, error)
                if refused is not None:
                    refused()
            else:
                self._spawn(later(_is_strike(error, client, sent_s)))

        if client is None or not client.publish_at_once(publication, ended):
            self._spawn(later())

    def _toss(self, publication: Publication) -> None:
        """Publish with QoS 0. Dropped without a connection, and counted if too much waits to be written."""
        client = self._client_now()
        if client is None:
            return
        if client.toss(publication):
            self._statistics.sent_bytes += len(publication.payload)
        else:
            self._statistics.overflowed += 1

    async def publish(self, publication: Publication) -> bool:
        """Publish and wait for the broker's word. Return whether it took the publication."""
        client, sent_s = self._client_now(), _now_s()
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        if client is None or not client.publish_at_once(publication, partial(_settle, ended)):
            return await self._repeat(publication)
        error = await ended
        if error is None:
            self._statistics.sent_bytes += len(publication.payload)
            return True
        if isinstance(error, RefusedError):
            self._note_refusal(publication, error)
            return False
        return await self._repeat(publication, _is_strike(error, client, sent_s))

    async def _repeat(self, publication: Publication, strikes: int = 0) -> bool:
        """Publish until the broker takes or refuses it, or it has cost too many connections."""
        is_alone = False
        async with contextlib.AsyncExitStack() as alone:
            while True:
                if strikes and not is_alone:
                    is_alone = True
                    await alone.enter_async_context(self._suspects)
                client = await self._client()
                sent_s = _now_s()
                try:
                    async with asyncio.timeout(self._forgotten_after_s):
                        await client.publish_once(publication)
                except RefusedError as refusal:
                    self._note_refusal(publication, refusal)
                    return False
                except ConnectionLostError as error:
                    log.debug("publishing on %s: %r; trying again", publication.topic, error)
                    strikes += _is_strike(error, client, sent_s)
                    if strikes == MAX_STRIKES:
                        self._statistics.undeliverable += 1
                        log.warning(
                            "gave up a publication of %d bytes on %s: the broker ended the connection at "
                            "each of %d attempts (is the topic too long or the message too large for it?)",
                            len(publication.payload),
                            publication.topic[:200],
                            strikes,
                        )
                        return False
                except (TimeoutError, aiomqtt.MqttError) as error:
                    log.debug("publishing on %s: %r; trying again", publication.topic, error)
                    await asyncio.sleep(_REPEAT_AFTER_S)
                else:
                    self._statistics.sent_bytes += len(publication.payload)
                    return True

    def _note_refusal(self, publication: Publication, refusal: RefusedError) -> None:
        self._statistics.refused += 1
        self._warnings.warn(
            publication.topic,
            "the broker refuses publications on %s: %s (check its access list, and the user name of this "
            "part)",
            publication.topic,
            refusal,
        )


def _is_strike(error: Exception, client: BrokerClient | None, sent_s: float) -> bool:
    """Whether the broker may have ended the connection because of a publication."""
    if client is None or not isinstance(error, ConnectionLostError):
        return False
    return client.was_closed_by_broker and _now_s() - sent_s < _AT_ONCE_S


def _settle(ended: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not ended.done():
        ended.set_result(error)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
