"""Feed the state from a broker, for as long as it takes, and write down what ended."""

import asyncio
import logging
import sqlite3
import time
from typing import Any, Final

from pydantic import TypeAdapter

from splitplace.bus.settings import Settings
from splitplace.commands.dashboard.exposition import Exposition
from splitplace.commands.dashboard.gallery import Gallery
from splitplace.commands.dashboard.history import History
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.shared.client import connected, may_not_read, read, subscribe
from splitplace.commands.shared.task_record import TaskView, view
from splitplace.errors import UnreachableError
from splitplace.messages.base import Message
from splitplace.messages.cluster import ClusterMembers, NodeState
from splitplace.messages.topics import (
    ANSWER,
    APPLICATION,
    AVAILABILITY_NODE,
    AVAILABILITY_SERVICE,
    AVAILABILITY_SYSTEM,
    CLUSTER_MEMBERS,
    CLUSTER_NODE,
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    LATEST_OF_SENSOR,
    METRICS_APPLICATION,
    METRICS_CLUSTER,
    METRICS_DECISION,
    METRICS_GATEWAY,
    METRICS_NODE,
    METRICS_REFUSALS,
    METRICS_SENSOR,
    METRICS_SERVICE,
    METRICS_TASKS,
    NODE_FAILURE,
    NODE_INFO,
    NODE_STATUS,
    SERVICE_STATUS,
    TASK_LEVEL,
    Topic,
)

log = logging.getLogger(__name__)

TOPICS: tuple[Topic[Any], ...] = (
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_PLACED,
    JOB_FINISHED,
    NODE_STATUS,
    NODE_INFO,
    NODE_FAILURE,
    CLUSTER_NODE,
    CLUSTER_MEMBERS,
    SERVICE_STATUS,
    APPLICATION,
    METRICS_TASKS,
    METRICS_APPLICATION,
    METRICS_DECISION,
    METRICS_GATEWAY,
    METRICS_REFUSALS,
    METRICS_NODE,
    METRICS_CLUSTER,
    METRICS_SERVICE,
    METRICS_SENSOR,
    AVAILABILITY_SYSTEM,
    AVAILABILITY_SERVICE,
    AVAILABILITY_NODE,
)

TASK_VIEW: Final = TypeAdapter(TaskView)
_TASKS: Final = f"{TASK_LEVEL}/#"
_AGAIN_S = 2.0
_WRITE_S = 2.0


async def follow(
    settings: Settings, state: DashboardState, exposition: Exposition, gallery: Gallery | None = None
) -> None:
    """Feed the state until cancelled; connect again whenever the broker is lost.

    Args:
        settings: where the broker is.
        state: is fed.
        exposition: is fed.
        gallery: gets tasks and answers; None = they are not read.
    """
    while True:
        try:
            await _follow_once(settings, state, exposition, gallery)
        except UnreachableError as error:
            if state.trouble != str(error):
                log.warning("%s", error)
            state.lost(str(error))
        await asyncio.sleep(_AGAIN_S)


async def _follow_once(
    settings: Settings, state: DashboardState, exposition: Exposition, gallery: Gallery | None
) -> None:
    async with connected(settings, "dashboard") as client:
        denied = [topic.filter for topic in TOPICS if not await subscribe(client, settings, topic.filter)]
        if denied:
            raise UnreachableError(f"{may_not_read(settings, denied)}: run as an operator or dashboard")
        await subscribe(client, settings, LATEST_OF_SENSOR.filter, qos=0)  # labels, where it may read them
        for name in (_TASKS, ANSWER.filter) if gallery is not None else ():
            if not await subscribe(client, settings, name, qos=0):
                raise UnreachableError(
                    f"{may_not_read(settings, [name])}: pictures need a broker without users"
                )
        exposition.forget_figures()
        state.connected, state.trouble, state.started_s = True, "", time.time()
        async for message in client.messages:
            name = message.topic.value.removeprefix(f"{settings.prefix}/")
            payload = bytes(message.payload or b"")
            if gallery is not None and gallery.take(name, payload):
                continue
            taken = take(state, name, payload, time.time(), retained=message.retain)
            if taken is not None:
                exposition.apply(name, taken)
            elif not payload:
                exposition.clear(name)
    raise UnreachableError(f"broker {settings.broker}: the connection ended")


def take(state: DashboardState, name: str, payload: bytes, now_s: float, *, retained: bool) -> Message | None:
    """Take in what came on a topic, and return it; what is not valid is left out."""
    if not payload:
        state.clear(name, now_s)
        return None
    for topic in (*TOPICS, LATEST_OF_SENSOR):
        message: Message | None = read(topic, name, payload)
        if message is not None:
            whole: Message | None = message
            if isinstance(message, NodeState | ClusterMembers):
                whole = state.assembly.take(message)
            if whole is not None:
                state.apply(name, whole, now_s, retained=retained)
            return message
    return None


async def keep(state: DashboardState, history: History, lock: asyncio.Lock) -> None:
    """Write down what ended, every two seconds, until cancelled."""
    while True:
        await asyncio.sleep(_WRITE_S)
        async with lock:
            await asyncio.to_thread(write_ended, state, history)


def write_ended(state: DashboardState, history: History) -> None:
    """Write down what ended since the last call. Blocks."""
    ended = state.take_ended()
    if not ended:
        return
    tasks = [
        (each.task, TASK_VIEW.dump_json(view(each, state.applications.get(each.application))))
        for each in ended
    ]
    try:
        history.add(tasks, list(state.minutes)[-2:], time.time())
    except sqlite3.Error as error:
        log.warning("the history cannot be written: %s", error)
