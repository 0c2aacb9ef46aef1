"""What commands that send tasks share: the publication of a task, and whether a gateway is there."""

import msgpack
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.client import BrokerClient
from splitplace.bus.publication import Publication
from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import may_not_read, retained
from splitplace.errors import UnreachableError
from splitplace.messages.task import TaskRequest
from splitplace.messages.topics import ANSWER, GATEWAY, SERVICE_STATUS, TASK_NAMED

OTHER_USER = "send as a sensor or operator (splitplace secure add sensor NAME, then --credentials FILE)"
"""What a user does who may not send tasks."""


def task_publication(
    settings: Settings, application: str, client: str, task: str, request: TaskRequest
) -> Publication:
    """Return a task in msgpack. Any MQTT 5 client can send it: response topic, correlation data."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = f"{settings.prefix}/{ANSWER.at(client=client, task=task)}"
    properties.CorrelationData = task.encode()
    properties.ContentType = "application/msgpack"
    topic = f"{settings.prefix}/{TASK_NAMED.at(application=application, client=client, task=task)}"
    return Publication(topic, msgpack.packb(request.model_dump(exclude_none=True)), properties=properties)


async def check_gateway(client: BrokerClient, settings: Settings) -> None:
    """Raise UnreachableError unless a gateway says that it is online."""
    seen = await retained(client, settings, (SERVICE_STATUS,), service=GATEWAY)
    if seen.unreadable:
        raise UnreachableError(f"{may_not_read(settings, seen.unreadable)}: {OTHER_USER}")
    if not any(said.online for said in seen.messages(SERVICE_STATUS)):
        raise UnreachableError(
            f"no gateway runs on {settings.broker} below {settings.prefix} (start it with: splitplace up)"
        )
