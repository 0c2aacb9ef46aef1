"""What nodes need beside a broker: somebody who describes applications and hands out fragments."""

import asyncio

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.messages.application import Application
from splitplace.messages.cluster import FragmentMissing, FragmentRequest
from splitplace.messages.frames import FragmentHeader, pack
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.topics import APPLICATION, FRAGMENT_CHUNK, FRAGMENT_MISSING, FRAGMENT_REQUEST
from splitplace.storage.model_store import ModelStore, StoreError


class FragmentRepository:
    """A stand-in for the splitter's fragment service, which tests can make misbehave."""

    def __init__(self, settings: Settings, store: ModelStore, *applications: Application) -> None:
        self.bus = Bus(settings, "repository")
        self.requests: list[FragmentRequest] = []
        self.corrupt: set[int] = set()
        """Numbers of requests (from 0) whose pieces are answered with wrong content of the right size."""
        self.lose: set[int] = set()
        """Numbers of requests that are not answered."""
        self.withheld: set[str] = set()
        """Fragments whose requests are not answered."""
        self._store = store
        self._applications = applications
        self.bus.subscribe(FRAGMENT_REQUEST, self._on_request)
        self.bus.on_connect(self._announce)

    async def _announce(self) -> None:
        for application in self._applications:
            await self.bus.publish(APPLICATION, application, application=application.name)

    async def _on_request(self, received: Received[FragmentRequest]) -> None:
        request = received.message
        number = len(self.requests)
        self.requests.append(request)
        if number in self.lose or request.fragment in self.withheld:
            return
        try:
            content = await asyncio.to_thread(self._store.file_path(request.fragment).read_bytes)
        except StoreError as error:
            missing = FragmentMissing(fragment=request.fragment, reason=error.reason)
            await self.bus.publish(FRAGMENT_MISSING, missing)
            return
        if number in self.corrupt:
            content = bytes(len(content))
        for chunk in range(request.first_chunk, request.first_chunk + request.chunks):
            header = FragmentHeader(fragment=request.fragment, file_bytes=len(content), chunk=chunk)
            frame = pack(header, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
            await self.bus.send_frame(FRAGMENT_CHUNK, frame, fragment=request.fragment)
