"""Commands to Mosquitto's dynamic-security plugin, over MQTT: no secret stands on a command line."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from typing import Any

from splitplace.bus.client import BrokerClient
from splitplace.bus.publication import Publication
from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import connected
from splitplace.errors import SplitPlaceError, UnreachableError
from splitplace.security.dynamic_security import (
    COMMAND_TOPIC,
    RESPONSE_TOPIC,
    Json,
    User,
    create_client,
    create_role,
    delete_client,
    delete_role,
    list_clients,
    list_roles,
)
from splitplace.security.register import Login, Note, logins
from splitplace.storage.secured import UsersFolder

ANSWER_S = 10.0


class ControlError(SplitPlaceError):
    """The broker's plugin did not do what it was asked."""


class Control:
    """A connection as the enroller."""

    def __init__(self, client: BrokerClient, prefix: str) -> None:
        self._client = client
        self.prefix = prefix

    async def send(self, *commands: Json) -> list[Json]:
        """Send commands that are carried out in order; return what each answers.

        Raises:
            ControlError: one failed; those after it were carried out nevertheless.
            UnreachableError: the plugin is silent.
        """
        mark = secrets.token_hex(8)
        marked = [{**each, "correlationData": f"{mark}-{index}"} for index, each in enumerate(commands)]
        payload = json.dumps({"commands": marked}).encode()
        await self._client.publish_once(Publication(COMMAND_TOPIC, payload))
        answers: dict[str, Json] = {}
        try:
            async with asyncio.timeout(ANSWER_S):
                while len(answers) < len(marked):
                    answers |= _answers(bytes((await anext(self._client.messages)).payload), mark)
        except TimeoutError:
            raise UnreachableError(
                "the broker's plugin does not answer: is dynamic-security loaded?"
            ) from None
        ordered = [answers[each["correlationData"]] for each in marked]
        for command, answer in zip(commands, ordered, strict=True):
            if "error" in answer:
                raise ControlError(f"the broker refuses {command['command']}: {answer['error']}")
        return ordered

    async def logins(self) -> tuple[Login, ...]:
        """Return everybody whom the broker knows and we have made."""
        (answer,) = await self.send(list_clients())
        return logins(answer.get("data", {}).get("clients", ()))

    async def roles(self) -> list[Json]:
        """Return all roles with their rules."""
        (answer,) = await self.send(list_roles())
        return list(answer.get("data", {}).get("roles", ()))

    async def add(self, user: User, note: Note) -> None:
        """Make a user with its rights. Rights of the same name stay."""
        if not any(login.kind == user.kind and login.name == user.name for login in await self.logins()):
            with contextlib.suppress(ControlError):  # left behind without logins
                await self.send(delete_role(user.kind, user.name))
            await self.send(create_role(user.kind, user.name, self.prefix))
        await self.send(create_client(user, str(note)))

    async def remove(self, gone: Iterable[Login]) -> None:
        """Remove logins: their connections end at once. Rights go with the last login that has them."""
        gone = tuple(gone)
        if not gone:
            return
        await self.send(*(delete_client(each.login) for each in gone))
        left = {(each.kind, each.name) for each in await self.logins()}
        for kind, name in dict.fromkeys((each.kind, each.name) for each in gone):
            if (kind, name) not in left:
                await self.send(delete_role(kind, name))

    async def clear(self, topics: Iterable[str]) -> None:
        """Delete retained messages."""
        for topic in topics:
            name = f"{self.prefix}/{topic}"
            await self._client.publish_once(Publication(name, b"", retain=True))


@contextlib.asynccontextmanager
async def controlling(settings: Settings) -> AsyncIterator[Control]:
    """Connect with the credentials of the enroller. Raises UnreachableError."""
    async with connected(settings, "secure") as client:
        codes = await client.subscribe(RESPONSE_TOPIC, qos=1)
        if any(getattr(code, "is_failure", False) for code in codes):
            raise UnreachableError(f"{settings.username} may not command the broker's plugin")
        yield Control(client, settings.prefix)


def enroller_settings(users: UsersFolder, name: str) -> Settings:
    """Return the settings of the only user who may change users. Raises CredentialsError."""
    return Settings.load(credentials=users.existing(name))


def _answers(payload: bytes, mark: str) -> dict[str, Json]:
    """Return our answers in a message of the plugin, which everybody who may command hears."""
    try:
        responses: Any = json.loads(payload)["responses"]
        return {
            each["correlationData"]: each
            for each in responses
            if str(each.get("correlationData", "")).startswith(f"{mark}-")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
