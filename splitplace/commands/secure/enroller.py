"""The enroller: lets newcomers in, and removes what has expired. `splitplace up` runs it in a secured system.

It is the only process that may make users. It listens to nobody but newcomers, who have a one-time password.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from splitplace.bus.connection import Bus, Received
from splitplace.bus.process import run_until_signal
from splitplace.bus.settings import Settings
from splitplace.commands.secure.control import Control, controlling
from splitplace.errors import SplitPlaceError
from splitplace.messages.joining import JoinAnswer, JoinRequest, TrustedAuthorities
from splitplace.messages.topics import AUTHORITY, ENROLLER, JOIN_ANSWER, JOIN_REQUEST, NODE
from splitplace.security.dynamic_security import User, describe_client, replace_role, role
from splitplace.security.names import newcomer_login, role_parts
from splitplace.security.register import Login, Note
from splitplace.storage.client_secret import draw_secret
from splitplace.storage.credentials import Credentials

log = logging.getLogger(__name__)

ROTATED_S = 60.0
"""Time for which a node's old password is good once it has joined anew."""

_SWEEP_S = 10.0


class Enroller:
    """Makes a lasting user of each newcomer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bus = Bus(settings, f"splitplace-{ENROLLER}", secret=draw_secret())
        self._bus.subscribe(JOIN_REQUEST, self._on_request)
        self._bus.on_connect(self._tell_authority)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self._bus:
            await self._bus.connected()
            log.info("the enroller is online: broker %s", self._settings.broker)
            while True:
                with contextlib.suppress(SplitPlaceError):  # said by the bus, or done in the next round
                    async with controlling(self._settings) as control:
                        await renew_rules(control)
                        await sweep(control, time.time())
                        while self._bus.is_connected:
                            await asyncio.sleep(_SWEEP_S)
                            await sweep(control, time.time())
                await asyncio.sleep(_SWEEP_S)

    async def _tell_authority(self) -> None:
        """Nodes that are online while the authority is replaced learn of the new one."""
        if self._settings.credentials is not None:
            known = Credentials.load(self._settings.credentials).authority
            await self._bus.publish(AUTHORITY, TrustedAuthorities(certificates=known.strip() + "\n"))

    async def _on_request(self, received: Received[JoinRequest]) -> None:
        request = received.message
        try:
            async with controlling(self._settings) as control:
                newcomer = await admit(control, request, time.time())
                await self._bus.publish(JOIN_ANSWER, JoinAnswer(node=request.node))
                await control.remove([newcomer])
        except SplitPlaceError as error:
            log.warning("%s may not join: %s", request.node, error)
            await self._bus.publish(JOIN_ANSWER, JoinAnswer(node=request.node, error=str(error)[:1000]))
        else:
            log.info("%s has joined", request.node)


class NotAdmittedError(SplitPlaceError):
    """A newcomer has no valid token."""


async def admit(control: Control, request: JoinRequest, now_s: float) -> Login:
    """Make the lasting user of a newcomer. Return its one-time login, which is to be removed.

    Older logins of the same node are good for another minute.

    Raises:
        NotAdmittedError: its token has expired or was used.
        ControlError: the broker refuses.
    """
    known = await control.logins()
    newcomer = next((each for each in known if each.login == newcomer_login(request.node)), None)
    if newcomer is None or newcomer.has_expired(now_s):
        raise NotAdmittedError(
            "the token has expired or was used: make another with splitplace secure add node"
        )
    own = [each for each in known if each.kind == NODE and each.name == request.node]
    if all(each.login != newcomer.note.login for each in own):  # else it asks again: it heard no answer
        await control.add(User(NODE, request.node, newcomer.note.login, request.password), Note())
    for each in own:
        if each.login != newcomer.note.login:
            await control.send(describe_client(each.login, str(Note(now_s + ROTATED_S))))
    return newcomer


async def sweep(control: Control, now_s: float) -> None:
    """Remove logins that have expired."""
    expired = [each for each in await control.logins() if each.has_expired(now_s)]
    for each in expired:
        log.info("%s has expired", each.login)
    await control.remove(expired)


async def renew_rules(control: Control) -> None:
    """Give every user the rules of this version, where a newer version has other topics."""
    for found in await control.roles():
        parts = role_parts(str(found.get("rolename", "")))
        if parts is not None and _rules(found) != _rules(role(*parts, control.prefix)):
            log.info("renewing the rules of the %s %s", *parts)
            await control.send(replace_role(*parts, control.prefix))


def _rules(found: dict[str, object]) -> set[tuple[str, str, bool]]:
    acls = found.get("acls")
    entries: Iterable[dict[str, object]] = acls if isinstance(acls, list) else ()
    return {(str(each.get("acltype")), str(each.get("topic")), bool(each.get("allow"))) for each in entries}


def main(credentials: Path) -> None:
    """Run until a signal ends it."""
    settings = Settings.load(credentials=credentials)
    run_until_signal(Enroller(settings).run(), settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
