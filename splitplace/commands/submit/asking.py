"""Send a task and wait for its answer; read what an application takes."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgpack

from splitplace.bus.publication import RefusedError
from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import (
    SPEAKS_WITHIN_S,
    connected,
    may_not_read,
    may_not_write,
    retained,
    subscribe,
)
from splitplace.commands.shared.tasks import OTHER_USER, check_gateway, task_publication
from splitplace.errors import NotAllowedError, UnreachableError
from splitplace.messages.application import Application
from splitplace.messages.task import Answer, TaskRequest
from splitplace.messages.topics import ANSWER, APPLICATION, GATEWAY, METRICS_SERVICE

_EXTRA_PATIENCE_S = 5.0


Ask = Callable[[TaskRequest], Awaitable[Answer]]
"""Send a task and return its answer. Raises UnreachableError if none comes."""


async def ask(settings: Settings, application: str, request: TaskRequest) -> Answer:
    """Send one task and return its answer. Raises UnreachableError as `asking` does."""
    async with asking(settings, application) as ask_once:
        return await ask_once(request)


@asynccontextmanager
async def asking(settings: Settings, application: str) -> AsyncIterator[Ask]:
    """Connect, to ask one thing after the other. Any MQTT 5 client can: response topic, correlation data.

    Raises:
        NotAllowedError: This user may not send tasks or read answers.
        UnreachableError: The broker cannot be reached, no gateway is online, or no valid answer came within
            the deadline and the gateway's grace.
    """
    # Where the broker has an access list, a client may only use its own user name.
    name = settings.client_name or f"submit-{secrets.token_hex(4)}"
    answers = f"{settings.prefix}/{ANSWER.at(client=name, task='+')}"
    heartbeat = f"{settings.prefix}/{METRICS_SERVICE.at(service=GATEWAY)}"
    async with connected(settings, "submit") as client:
        await check_gateway(client, settings)
        await subscribe(client, settings, METRICS_SERVICE.at(service=GATEWAY), qos=0)
        if not await subscribe(client, settings, ANSWER.at(client=name, task="+")):
            raise NotAllowedError(f"{may_not_read(settings, [answers])}: {OTHER_USER}")

        async def ask_once(request: TaskRequest) -> Answer:
            task = secrets.token_hex(8)
            publication = task_publication(settings, application, name, task, request)
            patience_s = 2 * (request.deadline_ms or 0.0) / 1000 + _EXTRA_PATIENCE_S
            was_alive = True  # until its heartbeat turns out to be a leftover
            try:
                await client.publish_once(publication)
            except RefusedError as error:
                raise NotAllowedError(
                    f"{may_not_write(settings, publication.topic)} ({error}): {OTHER_USER}"
                ) from error
            try:
                async with asyncio.timeout(patience_s) as patience:
                    end_s = patience.when()
                    async for message in client.messages:
                        if message.topic.matches(answers) and message.topic.value.endswith(f"/{task}"):
                            # In msgpack, as the task was.
                            return Answer.model_validate(msgpack.unpackb(message.payload, use_list=False))
                        if message.topic.matches(heartbeat):
                            was_alive, silent_s = not message.retain, _now_s() + SPEAKS_WITHIN_S
                            patience.reschedule(end_s if was_alive else min(end_s or silent_s, silent_s))
            except TimeoutError:
                if not was_alive:
                    raise UnreachableError(
                        f"the gateway on {settings.broker} gives no sign of life: its 'online' is what it "
                        "left behind (start it with: splitplace up)"
                    ) from None
                raise UnreachableError(
                    f"no answer came within {patience_s:.1f} s; see the gateway's log"
                ) from None
            except ValueError as error:
                raise UnreachableError(f"not a valid answer on {answers}: {error}") from error
            raise UnreachableError(f"broker {settings.broker}: the connection ended")

        yield ask_once


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def application_of(settings: Settings, name: str) -> Application | None:
    """Return what the catalogue says of an application; None where it does not have it.

    Raises:
        NotAllowedError: This user may not read the catalogue.
        UnreachableError: The broker cannot be reached.
    """
    async with connected(settings, "submit") as client:
        seen = await retained(client, settings, (APPLICATION,), application=name)
    if seen.unreadable:
        raise NotAllowedError(f"{may_not_read(settings, seen.unreadable)}: {OTHER_USER}")
    return next(seen.messages(APPLICATION), None)
