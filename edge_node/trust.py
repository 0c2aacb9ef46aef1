"""Keeps a node's credentials up to date while the authority of a secured system is replaced."""

import asyncio
import logging
import socket
import ssl
from dataclasses import replace
from pathlib import Path

from splitplace.bus.connection import Received
from splitplace.bus.settings import Settings
from splitplace.messages.joining import TrustedAuthorities
from splitplace.storage.credentials import Credentials

log = logging.getLogger(__name__)

_PATIENCE_S = 10.0


class Trust:
    """Takes authorities that the enroller tells, if the broker's certificate is theirs."""

    def __init__(self, settings: Settings) -> None:
        """Keep the credentials of these settings."""
        self._settings = settings

    async def take(self, received: Received[TrustedAuthorities]) -> None:
        """Write the authorities into the file of credentials."""
        file = self._settings.credentials
        if file is None:
            return
        await asyncio.to_thread(self._take, file, received.message.certificates)

    def _take(self, file: Path, authorities: str) -> None:
        own = Credentials.load(file)
        if own.authority.strip() == authorities.strip():
            return
        try:
            self._check(authorities)
        except (OSError, ValueError) as error:  # also ssl.SSLError
            log.warning("the broker tells of an authority that has not signed its certificate: %s", error)
            return
        try:
            replace(own, authority=authorities).save(file)
        except OSError as error:
            log.warning(
                "the authority is being replaced, and %s cannot be written (%s): copy it anew, or this node "
                "will be shut out",
                *(file, error.strerror),
            )
            return
        log.info("%s holds the authorities that the broker trusts now", file)

    def _check(self, authorities: str) -> None:
        """Shake hands with the broker, trusting only these. Raises OSError, ValueError."""
        context = ssl.create_default_context(cadata=authorities)
        address = (self._settings.host, self._settings.port)
        with (
            socket.create_connection(address, _PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=address[0]),
        ):
            pass
