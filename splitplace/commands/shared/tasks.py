"""What commands that send tasks share: the publication of a task, and whether a gateway is there."""

import msgpack
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.client import BrokerClient
from splitplace.bus.publication import Publication
from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import may_not_read, retained
from splitplace.errors import NotAllowedError, UnreachableError
from splitplace.messages.task import TaskRequest
from splitplace.messages.topics import ANSWER, GATEWAY, SERVICE_STATUS, TASK_NAMED

OTHER_USER = "send as a sensor or operator (splitplace secure add sensor NAME, then --credentials FILE)"
"""What a user does who may not send tasks."""


def task_publication(
    settings: Settings, application: str, client: str, task: str, request: TaskRequest
) -> Publication:
    """Return a task in msgpack, whose answer is msgpack too. Any MQTT 5 client can send it."""
    properties = _properties(settings, client, task)
    properties.ContentType = "application/msgpack"
    payload = msgpack.packb(request.model_dump(exclude_none=True))
    return Publication(_topic(settings, application, client, task), payload, properties=properties)


def picture_publication(  # noqa: PLR0917 - as above
    settings: Settings, application: str, client: str, task: str, picture: bytes, deadline_ms: float
) -> Publication:
    """Return a bare picture as a task, whose answer is JSON, for whatever listens."""
    properties = _properties(settings, client, task)
    properties.UserProperty = [("deadline_ms", f"{deadline_ms:g}")]
    return Publication(_topic(settings, application, client, task), picture, properties=properties)


def _properties(settings: Settings, client: str, task: str) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = f"{settings.prefix}/{ANSWER.at(client=client, task=task)}"
    properties.CorrelationData = task.encode()
    return properties


def _topic(settings: Settings, application: str, client: str, task: str) -> str:
    return f"{settings.prefix}/{TASK_NAMED.at(application=application, client=client, task=task)}"


async def check_gateway(client: BrokerClient, settings: Settings) -> None:
    """Raise UnreachableError unless a gateway says that it is online."""
    seen = await retained(client, settings, (SERVICE_STATUS,), service=GATEWAY)
    if seen.unreadable:
        raise NotAllowedError(f"{may_not_read(settings, seen.unreadable)}: {OTHER_USER}")
    if not any(said.online for said in seen.messages(SERVICE_STATUS)):
        raise UnreachableError(
            f"no gateway runs on {settings.broker} below {settings.prefix} (start it with: splitplace up)"
        )
