"""Send frames as tasks, one at a time, and take their answers."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from pydantic import ValidationError

from splitplace.bus.client import BrokerClient
from splitplace.bus.publication import RefusedError
from splitplace.bus.settings import Settings
from splitplace.commands.camera.frames import Chooser, Frame, Waiting
from splitplace.commands.camera.sources import Source, picture_of_topic
from splitplace.commands.shared.client import connected, may_not_read, may_not_write, subscribe
from splitplace.commands.shared.tasks import OTHER_USER, check_gateway, picture_publication
from splitplace.errors import NotAllowedError, UnreachableError
from splitplace.messages.limits import MAX_TASK_BYTES
from splitplace.messages.task import Answer
from splitplace.messages.topics import ANSWER

_PATIENCE_S = 5.0
_LONGEST_PAUSE_S = 30.0

OnAnswer = Callable[[Frame, bytes, Answer | None], None]
"""Called with a frame, its picture file, and its answer; None if none came."""


@dataclass(frozen=True)
class Camera:
    """A camera and what is asked of its pictures."""

    name: str
    """Sensor that its tasks come from: it stands in the topic of each answer."""
    application: str
    deadline_ms: float
    chooser: Chooser
    source: Source | None
    """None = pictures come on `topic`."""
    topic: str = ""
    """Topic of the broker, without SplitPlace's prefix."""

    @property
    def is_live(self) -> bool:
        """Whether its frames come whether or not they are taken."""
        return self.source is None or self.source.is_live

    @property
    def is_endless(self) -> bool:
        """Whether frames come until somebody ends the command."""
        return self.source is None or self.source.is_endless


async def watch(settings: Settings, camera: Camera, on_answer: OnAnswer, waiting: Waiting) -> None:
    """Send frames until the source ends. An endless one goes on where the broker was away for a while.

    Raises:
        NotAllowedError: The broker does not let the user in, or not send or read.
        UnreachableError: There is no broker or gateway.
        SourceError: The source cannot be read.
    """
    producer = asyncio.create_task(_produce(camera, waiting))
    pause_s, was_connected = 1.0, False
    try:
        while True:
            try:
                async with connected(settings, "camera") as client:
                    await check_gateway(client, settings)
                    was_connected, pause_s = True, 1.0
                    await _serve(client, settings, camera, on_answer, waiting)
                    return
            except NotAllowedError:
                raise
            except UnreachableError:
                if not was_connected:
                    raise
                if not camera.is_endless:
                    async with connected(settings, "camera"):  # says so if the user was removed
                        pass
                    raise
                if camera.is_live:
                    waiting.settle()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    finally:
        producer.cancel()
        await asyncio.wait({producer})
        if not producer.cancelled() and (problem := producer.exception()) is not None:
            raise problem


async def _produce(camera: Camera, waiting: Waiting) -> None:
    """Let the chosen frames of a source wait, one after the other."""
    if camera.source is None:
        return
    reader = _Reader(camera.source)
    try:
        while (frame := await reader.next()) is not None:
            if camera.chooser.wants(frame):
                await waiting.put(frame, replaces=camera.source.is_live)
    finally:
        reader.end()
        await waiting.close()


class _Reader:
    """Takes frames from a source in a thread of its own.

    It may wait for a frame for ever: a thread of asyncio would keep the program from its end.
    """

    def __init__(self, source: Source) -> None:
        self._frames = source.frames()
        self._asked = SimpleQueue[Future[Frame | None] | None]()
        Thread(target=self._run, daemon=True).start()

    async def next(self) -> Frame | None:
        """Return the next frame; None at the end. Raises SourceError."""
        made = Future[Frame | None]()
        made.set_running_or_notify_cancel()  # from now on it is not cancelled: the thread may always set it
        self._asked.put(made)
        return await asyncio.wrap_future(made)

    def end(self) -> None:
        """End the thread once it has the frame that it waits for."""
        self._asked.put(None)

    def _run(self) -> None:
        while (made := self._asked.get()) is not None:
            try:
                made.set_result(next(self._frames, None))
            except Exception as error:  # noqa: BLE001 - raised where it is awaited
                made.set_exception(error)


async def _serve(
    client: BrokerClient, settings: Settings, camera: Camera, on_answer: OnAnswer, waiting: Waiting
) -> None:
    # Where the broker has an access list, a client may only use its own user name.
    name = settings.client_name or camera.name
    answers = ANSWER.at(client=name, task="+")
    if not await subscribe(client, settings, answers):
        raise NotAllowedError(f"{may_not_read(settings, [answers])}: {OTHER_USER}")
    if camera.topic:
        codes = await client.subscribe(camera.topic, qos=0)
        if any(getattr(code, "is_failure", False) for code in codes):
            raise NotAllowedError(may_not_read(settings, [camera.topic]))
    pending: dict[str, asyncio.Future[Answer]] = {}
    reader = asyncio.create_task(_read(client, settings, camera, pending, waiting))
    sending = _Sending(client, settings, camera, name, pending, on_answer)
    sender = asyncio.create_task(sending.run(waiting))
    try:
        done, _ = await asyncio.wait({reader, sender}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        if reader in done:
            raise UnreachableError(f"broker {settings.broker}: the connection ended")
    finally:
        for task in (reader, sender):
            task.cancel()
        await asyncio.gather(reader, sender, return_exceptions=True)


async def _read(
    client: BrokerClient,
    settings: Settings,
    camera: Camera,
    pending: dict[str, asyncio.Future[Answer]],
    waiting: Waiting,
) -> None:
    """Take in answers, and pictures that come by the broker."""
    async for message in client.messages:
        topic = str(message.topic)
        payload = message.payload
        if camera.topic and topic == camera.topic:
            frame = picture_of_topic(topic, payload)
            if payload and not message.retain and camera.chooser.wants(frame):
                await waiting.put(frame, replaces=True)
        elif topic.startswith(f"{settings.prefix}/"):
            future = pending.pop(topic.rpartition("/")[2], None)
            if future is not None:
                with suppress(ValidationError, ValueError):
                    future.set_result(Answer.model_validate_json(payload))


@dataclass(frozen=True)
class _Sending:
    """Sends the frame that waits, and waits for its answer: meanwhile a newer one may take the next turn."""

    client: BrokerClient
    settings: Settings
    camera: Camera
    name: str
    """Sensor's name on the broker."""
    pending: dict[str, asyncio.Future[Answer]]
    on_answer: OnAnswer

    async def run(self, waiting: Waiting) -> None:
        """Send frame after frame. Raises NotAllowedError where the broker takes none."""
        while (frame := await waiting.take()) is not None:
            content = await asyncio.to_thread(frame.content)
            is_small = len(content) <= MAX_TASK_BYTES
            self.on_answer(frame, content, await self._answer(content) if is_small else None)
            waiting.settle()

    async def _answer(self, content: bytes) -> Answer | None:
        camera = self.camera
        shown = "" if self.name == camera.name else f"{camera.name}-"
        task = f"{shown}{secrets.token_hex(8)}"
        future = self.pending[task] = asyncio.get_running_loop().create_future()
        publication = picture_publication(
            self.settings, camera.application, self.name, task, content, camera.deadline_ms
        )
        try:
            await self.client.publish_once(publication)
        except RefusedError as error:
            topic = may_not_write(self.settings, publication.topic)
            raise NotAllowedError(f"{topic} ({error}): {OTHER_USER}") from error
        try:
            return await asyncio.wait_for(future, 2 * camera.deadline_ms / 1000 + _PATIENCE_S)
        except TimeoutError:
            return None
        finally:
            self.pending.pop(task, None)
