"""Messages that are being parsed or decoded now, kept where the death of the process does not reach.

A message that kills the gateway is not acknowledged, so the broker sends it to the next gateway. The file
says what the last one worked on. Whatever was there when a gateway died is a suspect. It is tried again
alone, so that it drags no other message with it. What was there twice is given up.
"""

import asyncio
import contextlib
import hashlib
import mmap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from splitplace.bus.incoming import RawReceived
from splitplace.services.gateway.refusals import refuse

STRIKES = 2
"""Deaths of the gateway that one message may cost."""

_SLOTS = 256
_DIGEST_BYTES = 16
_SLOT_BYTES = _DIGEST_BYTES + 2
"""Digest, deaths, and whether it is being worked on."""
_HASHED_BYTES = 4096
"""Bytes of the beginning and of the end of a payload that tell messages apart."""
_FREE = bytes(_DIGEST_BYTES)


class UnderWay:
    """A context manager around the file. Writing it is writing memory; the kernel keeps it."""

    def __init__(self, path: Path, version: str) -> None:
        """Open nothing yet.

        Args:
            path: the file; made if it is missing, begun anew if it makes no sense.
            version: the software's; another version gets another chance.
        """
        self._path = path
        self._version = version.encode()
        self._memory: mmap.mmap | bytearray = bytearray(_SLOTS * _SLOT_BYTES)
        self._slots: dict[bytes, int] = {}
        self._alone = asyncio.Lock()

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError):  # then the strikes of this process are forgotten
            size = _SLOTS * _SLOT_BYTES
            with self._path.open("a+b") as file:
                if file.seek(0, 2) != size:
                    file.truncate(0)
                    file.write(bytes(size))  # a hole would end this process where the disk is full
                    file.flush()
                self._memory = mmap.mmap(file.fileno(), size)
        for slot in range(_SLOTS):
            at = slot * _SLOT_BYTES + _DIGEST_BYTES
            if self._memory[at + 1]:
                self._memory[at] = min(255, self._memory[at] + 1)
                self._memory[at + 1] = 0
            if (digest := self._digest_at(slot)) != _FREE:
                self._slots[digest] = slot
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
            self._memory = bytearray(_SLOTS * _SLOT_BYTES)

    @contextlib.asynccontextmanager
    async def working_on(self, raw: RawReceived) -> AsyncIterator[None]:
        """Parse or decode a message inside.

        Raises:
            TaskRefusedError: the gateway died of it before, too often.
        """
        digest = self._digest(raw)
        deaths = self._deaths(digest)
        if deaths >= STRIKES:
            refuse("poison", f"given up: the gateway died {deaths} times while it worked on this message")
        async with contextlib.AsyncExitStack() as stack:
            if deaths:
                await stack.enter_async_context(self._alone)
            with self._noted(digest):
                yield

    def is_suspect(self, raw: RawReceived) -> bool:
        """Whether the gateway has died while it worked on this message."""
        return self._deaths(self._digest(raw)) > 0

    def working_at_once_on(self, raw: RawReceived) -> contextlib.AbstractContextManager[None]:
        """Parse or decode a message that is no suspect inside, without waiting."""
        return self._noted(self._digest(raw))

    @contextlib.contextmanager
    def _noted(self, digest: bytes) -> Iterator[None]:
        slot = self._take(digest)
        try:
            yield
        finally:  # only the death of the process leaves it there
            self._free(digest, slot)

    def _digest(self, raw: RawReceived) -> bytes:
        payload = raw.payload
        ends = payload
        if len(payload) > 2 * _HASHED_BYTES:
            ends = payload[:_HASHED_BYTES] + payload[-_HASHED_BYTES:]
        name = "/".join(raw.parameters.values()).encode()
        head = b"%d;%s;%s;" % (len(payload), self._version, name)
        return hashlib.blake2b(head + ends, digest_size=_DIGEST_BYTES).digest()

    def _digest_at(self, slot: int) -> bytes:
        return bytes(self._memory[slot * _SLOT_BYTES : slot * _SLOT_BYTES + _DIGEST_BYTES])

    def _deaths(self, digest: bytes) -> int:
        slot = self._slots.get(digest)
        return self._memory[slot * _SLOT_BYTES + _DIGEST_BYTES] if slot is not None else 0

    def _take(self, digest: bytes) -> int | None:
        slot = self._slots.get(digest)
        if slot is None:
            slot = self._vacant()
        if slot is None:
            return None  # more at once than there are slots
        self._slots[digest] = slot
        at = slot * _SLOT_BYTES
        deaths = self._memory[at + _DIGEST_BYTES] if self._digest_at(slot) == digest else 0
        self._memory[at : at + _SLOT_BYTES] = digest + bytes((deaths, 1))
        return slot

    def _vacant(self) -> int | None:
        taken = set(self._slots.values())
        if len(taken) < _SLOTS:
            return next(slot for slot in range(_SLOTS) if slot not in taken)
        for digest, slot in self._slots.items():  # the oldest suspect that nobody sends any more
            if not self._memory[slot * _SLOT_BYTES + _DIGEST_BYTES + 1]:
                del self._slots[digest]
                return slot
        return None

    def _free(self, digest: bytes, slot: int | None) -> None:
        if slot is not None and self._slots.get(digest) == slot:
            del self._slots[digest]
            self._memory[slot * _SLOT_BYTES : (slot + 1) * _SLOT_BYTES] = bytes(_SLOT_BYTES)
