"""The publications of one connection that are under way. Not thread-safe."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from splitplace.bus.packets import Acknowledged
from splitplace.bus.publication import ConnectionLostError, Publication, RefusedError

_SLOTS = 20
"""Publications of any size in flight at a time. More would keep pings waiting on a slow link."""
MAX_IN_FLIGHT = 256
"""Publications in flight at a time, small ones included."""
_MAX_WAITING = 4096
"""Small publications that may wait until others are acknowledged."""
_SMALL_BYTES = 16 * 1024
"""Publications up to this size do not wait for a slot."""

ENDED = "the connection ended"

Ended = Callable[[Exception | None], None]
"""Told how a publication has ended: None if the broker has it."""


class Flight:
    """Sends publications, and tells how each has ended."""

    def __init__(self, put: Callable[[Publication], int]) -> None:
        """Send nothing until `begin` is called.

        Args:
            put: writes a publication soon and returns its number, 0 for QoS 0. Raises aiomqtt.MqttError if
                there is no connection, and ValueError for a topic that nobody can publish on.
        """
        self._put = put
        self._loop = asyncio.get_running_loop()
        self._in_flight: dict[int, tuple[float, Ended]] = {}
        """When each publication was sent, and who is told of its end, by packet number."""
        self._most_at_once = 0
        self._waiting: deque[tuple[Publication, Ended]] = deque()
        """Small publications that are sent as others are acknowledged."""
        self._slots = asyncio.Semaphore(_SLOTS)
        self._is_over = False

    def __len__(self) -> int:
        """Return the number of publications that have not ended."""
        return len(self._in_flight) + len(self._waiting)

    def __contains__(self, packet: int) -> bool:
        """Whether the publication of this number waits for the broker's word."""
        return packet in self._in_flight

    def begin(self, allowed: int) -> None:
        """The broker takes this many unacknowledged publications at a time."""
        slots = max(1, min(allowed // 2, _SLOTS))  # Mosquitto's default allows no more than our slots
        self._slots = asyncio.Semaphore(slots)
        self._most_at_once = max(1, min(allowed, MAX_IN_FLIGHT) - slots)

    def publish_at_once(self, publication: Publication, ended: Ended) -> bool:
        """Publish without waiting. Return False if this is too large, or too many wait.

        Args:
            publication: what to publish.
            ended: called when the broker has it, or with the reason why it has not: RefusedError,
                ConnectionLostError, TimeoutError, or another aiomqtt.MqttError. Never called from here.
        """
        if (
            len(publication.payload) > _SMALL_BYTES
            or self._slots.locked()
            or len(self._waiting) >= _MAX_WAITING
            or self._is_over
        ):
            return False
        self._waiting.append((publication, ended))
        self._send_waiting()
        return True

    async def publish_once(self, publication: Publication) -> None:
        """Publish, and wait until the broker has it.

        Raises:
            RefusedError: the broker refuses it.
            ConnectionLostError: the connection ended first.
            aiomqtt.MqttError: it was not sent at all.
        """
        async with self._slots:
            if self._is_over:
                raise aiomqtt.MqttError(ENDED)
            packet = self._put(publication)
            if not packet:
                return
            acknowledged: asyncio.Future[None] = self._loop.create_future()
            self._in_flight[packet] = self._loop.time(), partial(_settle, acknowledged)
            try:
                await acknowledged
            finally:
                self._in_flight.pop(packet, None)

    def acknowledged(self, word: Acknowledged) -> None:
        """The broker has taken or refused a publication that is contained."""
        _, ended = self._in_flight.pop(word.packet)
        reason = ReasonCode(PacketTypes.PUBACK, identifier=word.reason) if word.reason else None
        ended(RefusedError(str(reason)) if reason is not None and reason.is_failure else None)
        self._send_waiting()

    def end(self) -> None:
        """End every publication: the connection has ended."""
        self._is_over = True
        in_flight, self._in_flight = self._in_flight, {}
        for _, ended in in_flight.values():
            ended(ConnectionLostError(ENDED))
        waiting, self._waiting = self._waiting, deque()
        for _, ended in waiting:
            ended(aiomqtt.MqttError(ENDED))

    def forget(self, after_s: float) -> None:
        """End the publications that were sent longer ago than this, with TimeoutError."""
        while self._in_flight:
            packet, (sent_s, ended) = next(iter(self._in_flight.items()))
            if self._loop.time() - sent_s < after_s:
                return
            del self._in_flight[packet]
            ended(TimeoutError())
            self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and len(self._in_flight) < self._most_at_once:
            publication, ended = self._waiting.popleft()
            try:
                packet = self._put(publication)
            except aiomqtt.MqttError as error:
                self._loop.call_soon(ended, error)
                continue
            if packet:
                self._in_flight[packet] = self._loop.time(), ended
            else:
                self._loop.call_soon(ended, None)


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
