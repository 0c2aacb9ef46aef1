"""Brings publications to the broker, over as many connections as that takes."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import aiomqtt
from paho.mqtt.properties import Properties

from splitplace.bus.client import BrokerClient, ConnectionLostError, RefusedError
from splitplace.bus.seldom import SeldomWarnings
from splitplace.bus.statistics import Statistics

log = logging.getLogger(__name__)

MAX_STRIKES = 3
"""Connections that one publication may cost."""

_AT_ONCE_S = 1.0
"""A broker that ends the connection this soon after a publication may mean that publication."""

_REPEAT_AFTER_S = 0.05


class Publisher:
    """Repeats what was not acknowledged, and gives up what the broker will never take.

    A publication that was under way when the broker ended the connection is a suspect. Suspects are repeated
    one at a time, so that the one that the broker cannot bear is known, and the others arrive.
    """

    def __init__(
        self,
        client: Callable[[], Awaitable[BrokerClient]],
        statistics: Statistics,
        warnings: SeldomWarnings,
        forgotten_after_s: float,
    ) -> None:
        """A publisher of one connection.

        Args:
            client: waits for the broker and returns the client that is connected.
            statistics: counters to add to.
            warnings: where refusals are logged.
            forgotten_after_s: without an acknowledgement for this long, a publication is repeated.
        """
        self._client = client
        self._statistics = statistics
        self._warnings = warnings
        self._forgotten_after_s = forgotten_after_s
        self._suspects = asyncio.Lock()

    async def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Properties | None
    ) -> bool:
        """Publish on a full topic. Return whether the broker took it."""
        strikes, is_alone = 0, False
        async with contextlib.AsyncExitStack() as alone:
            while True:
                if strikes and not is_alone:
                    is_alone = True
                    await alone.enter_async_context(self._suspects)
                client = await self._client()
                sent_s = _now_s()
                try:
                    async with asyncio.timeout(self._forgotten_after_s):
                        await client.publish_once(
                            topic, payload, qos=qos, retain=retain, properties=properties
                        )
                except RefusedError as refusal:
                    self._statistics.refused += 1
                    self._warnings.warn(
                        topic,
                        "the broker refuses publications on %s: %s (check its access list, and the user name "
                        "of this part)",
                        topic,
                        refusal,
                    )
                    return False
                except ConnectionLostError as error:
                    log.debug("publishing on %s: %r; trying again", topic, error)
                    strikes += client.was_closed_by_broker and _now_s() - sent_s < _AT_ONCE_S
                    if strikes == MAX_STRIKES:
                        self._statistics.undeliverable += 1
                        log.warning(
                            "gave up a publication of %d bytes on %s: the broker ended the connection at "
                            "each of %d attempts (is the topic too long or the message too large for it?)",
                            len(payload),
                            topic[:200],
                            strikes,
                        )
                        return False
                except (TimeoutError, aiomqtt.MqttError) as error:
                    log.debug("publishing on %s: %r; trying again", topic, error)
                    await asyncio.sleep(_REPEAT_AFTER_S)
                else:
                    self._statistics.sent_bytes += len(payload)
                    return True


def _now_s() -> float:
    return asyncio.get_running_loop().time()
