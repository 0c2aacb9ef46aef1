"""`splitplace home-assistant`."""

import asyncio
import contextlib
import json
import logging
import sys
import time
from typing import Annotated

import aiomqtt
import typer

from splitplace.bus.client import BrokerClient
from splitplace.bus.publication import Publication
from splitplace.bus.service import software_version
from splitplace.bus.settings import Settings
from splitplace.commands.dashboard.follow import TOPICS, take
from splitplace.commands.dashboard.health import health
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.home_assistant.devices import LIGHT_EXPIRES_S, ROOT, STATUS, Devices
from splitplace.commands.home_assistant.inventory import Inventory
from splitplace.commands.home_assistant.pictures import Pictures
from splitplace.commands.shared.client import connected, may_not_read, subscribe
from splitplace.commands.shared.options import BrokerOption, CredentialsOption, PrefixOption, settings_from
from splitplace.errors import ConfigurationError, UnreachableError
from splitplace.messages.topics import TASK_LEVEL

log = logging.getLogger(__name__)

_ROUND_S = 1.0
_LIGHT_S = LIGHT_EXPIRES_S / 3
_AGAIN_S = 2.0


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Whether the last picture of each sensor is copied for Home Assistant.",
        ),
    ] = False,
) -> None:
    """Tell Home Assistant by MQTT discovery what there is: applications, nodes, sensors, and a light.

    Runs until Ctrl-C. The devices stay when it ends; the light becomes unavailable.
    """
    settings = settings_from(broker, prefix, credentials)
    print(f"telling Home Assistant on {settings.broker} of {settings.prefix} (Ctrl-C ends)", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_stay(settings, pictures=pictures))


async def _stay(settings: Settings, *, pictures: bool) -> None:
    devices = Devices(settings.prefix, software_version())
    inventory = Inventory(devices, time.time(), pictures=pictures)
    said = ""
    while True:
        try:
            async with connected(settings, "home-assistant") as client:
                await _Bridge(settings, client, inventory).run(pictures=pictures)
        except UnreachableError as error:
            if str(error) != said:
                log.warning("%s", error)
                said = str(error)
        inventory.forget_told()
        await asyncio.sleep(_AGAIN_S)


class _Bridge:
    """One connection to the broker."""

    def __init__(self, settings: Settings, client: BrokerClient, inventory: Inventory) -> None:
        self._settings = settings
        self._client = client
        self._inventory = inventory
        self._devices = inventory.devices
        self._state = DashboardState(started_s=time.time(), connected=True)
        self._pictures = Pictures()
        self._light = ("", 0.0)

    async def run(self, *, pictures: bool) -> None:
        """Serve until the connection ends."""
        settings = self._settings
        names = [topic.filter for topic in TOPICS]
        denied = [name for name in names if not await subscribe(self._client, settings, name)]
        if denied:
            raise ConfigurationError(
                f"{may_not_read(settings, denied)}: use a user of the kind home-assistant"
            )
        if pictures and not await subscribe(self._client, settings, f"{TASK_LEVEL}/#", qos=0):
            raise ConfigurationError(
                f"{may_not_read(settings, [f'{TASK_LEVEL}/#'])}: pictures need a broker without users"
            )
        for name in (STATUS, f"{ROOT}/device/+/config"):
            await self._client.subscribe(name, qos=1)
        work = [asyncio.create_task(each) for each in (self._listen(), self._rounds())]
        try:
            ended, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                each.result()
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _listen(self) -> None:
        async for message in self._client.messages:
            await self._take(message)

    async def _take(self, message: aiomqtt.Message) -> None:
        topic, payload, now_s = message.topic.value, bytes(message.payload or b""), time.time()
        if topic == STATUS:
            if payload == b"online" and not message.retain:
                self._inventory.forget_told()
            return
        if topic.startswith(f"{ROOT}/"):
            if message.retain:
                self._inventory.adopt(topic, payload.decode(errors="replace"))
            return
        name = topic.removeprefix(f"{self._settings.prefix}/")
        if name.startswith(f"{TASK_LEVEL}/"):
            if (found := self._pictures.take(name, payload, now_s)) is not None:
                await self._publish(self._devices.picture_topic(found), payload, retain=False)
            return
        taken = take(self._state, name, payload, now_s, retained=message.retain)
        if taken is not None:
            self._inventory.apply(taken, now_s)
        elif not payload:
            self._inventory.clear(name, now_s)

    async def _rounds(self) -> None:
        while True:
            now_s = time.time()
            for topic, text in self._inventory.news(now_s):
                await self._publish(topic, text.encode(), retain=True)
            found = health(self._state, now_s, software_version())
            light = json.dumps({"light": found.light, "why": found.why})
            if light != self._light[0] or now_s - self._light[1] > _LIGHT_S:
                self._light = (light, now_s)
                await self._publish(self._devices.light_topic, light.encode(), retain=False)
            await asyncio.sleep(_ROUND_S)

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        await self._client.publish_once(Publication(topic, payload, retain=retain))
