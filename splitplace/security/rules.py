"""Access rules of each kind of user, made from the topic table. Pure.

What is not allowed is denied. Rules name topics with their prefix and with MQTT wildcards.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from splitplace.messages.frames import AGGREGATOR_INBOX, GATEWAY_SENDER
from splitplace.messages.topics import (
    ANSWER,
    APPLICATION,
    AVAILABILITY_NODE,
    DASHBOARD,
    ENROLLER,
    GATEWAY,
    HOME_ASSISTANT,
    METRICS_SERVICE,
    NEWCOMER,
    NODE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    OPERATOR,
    RESULT_AGGREGATOR,
    SENSOR,
    SERVICE_STATUS,
    TASK_LEVEL,
    TASKS,
    Topic,
    all_topics,
)
from splitplace.security.names import SERVICE

Access = Literal["publish", "read", "subscribe"]
"""`read` is to subscribe and to receive; `subscribe` alone delivers only what may be read besides."""

LEFT_BY_NODES = (NODE_STATUS, NODE_INFO, AVAILABILITY_NODE)
"""What the broker keeps of a node that was removed."""

CONTROL = "$CONTROL/dynamic-security/#"
"""Where the broker's plugin takes commands. Who may write there may do everything."""

DISCOVERY = "homeassistant/#"
"""Where Home Assistant looks for devices, and says that it has started."""

DOCTOR = "doctor/#"
"""Where `splitplace doctor` tries the broker out."""


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """What a user may do with topics."""

    access: Access
    topic: str


def rules(kind: str, name: str, prefix: str) -> tuple[Rule, ...]:
    """Return all that a user may do.

    Args:
        kind: one of `names.KINDS`.
        name: its name in topics.
        prefix: first levels of all topics.
    """
    below = (Rule(rule.access, f"{prefix}/{rule.topic}") for rule in _RULES[kind](name))
    return tuple(sorted({*below, *(Rule(*rule) for rule in _ELSEWHERE.get(kind, ()))}))


def _service(name: str) -> Iterator[Rule]:
    yield from _published(name, _own_levels(name))
    yield from _read(name, {"receiver": AGGREGATOR_INBOX} if name == RESULT_AGGREGATOR else {})
    if name == GATEWAY:  # deletes what sensors publish with the retain flag
        yield Rule("publish", f"{TASK_LEVEL}/#")
    for topic in (SERVICE_STATUS, METRICS_SERVICE):  # looking for namesakes, and its health check
        yield Rule("read", _filter(topic, {"service": name}))
    for figures in all_topics():  # clears what an earlier process left there
        if name in figures.publishers and figures.pattern.startswith(("metrics/", "latest/")):
            yield Rule("read", _filter(figures, _own_levels(name)))


def _own_levels(service: str) -> Mapping[str, str]:
    return {"service": service} | ({"sender": GATEWAY_SENDER} if service == GATEWAY else {})


def _node(name: str) -> Iterator[Rule]:
    """A node speaks for itself and hears what is for it: also of others it reads nothing."""
    yield from _published(NODE, {"node": name, "sender": name})
    yield from _read(NODE, {"node": name, "receiver": name})


def _sensor(name: str) -> Iterator[Rule]:
    """A sensor signs its tasks by the topic, reads its own answers, and sees what is on offer."""
    for task in TASKS:
        if "client" in task.parameters:
            yield Rule("publish", _filter(task, {"client": name}))
    yield Rule("read", _filter(ANSWER, {"client": name}))
    yield Rule("read", _filter(APPLICATION, {}))
    for topic in (SERVICE_STATUS, METRICS_SERVICE):
        yield Rule("read", _filter(topic, {"service": GATEWAY}))


def _dashboard(_: str) -> Iterator[Rule]:
    """A dashboard may subscribe to whole subtrees, such as `job/#`, and hears of them what is for it."""
    yield from _read(DASHBOARD, {})
    yield Rule("read", _filter(NODE_VITALS, {}))  # tells the living from what is retained
    for topic in all_topics():
        if DASHBOARD in topic.subscribers:
            yield Rule("subscribe", f"{topic.pattern.partition('/')[0]}/#")


def _home_assistant(name: str) -> Iterator[Rule]:
    """Home Assistant is a dashboard that sees the labels of answers."""
    yield from _dashboard(name)
    yield from _read(HOME_ASSISTANT, {})


def _operator(name: str) -> Iterator[Rule]:
    """An operator watches everything but pictures and tensors, tries the broker, and may send tasks."""
    yield from _dashboard(name)
    yield from _sensor(name)
    yield Rule("publish", DOCTOR)
    yield Rule("read", DOCTOR)


def _enroller(_: str) -> Iterator[Rule]:
    """The enroller lets newcomers in, and clears what removed nodes have left behind."""
    yield from _published(ENROLLER, {})
    yield from _read(ENROLLER, {})
    for topic in LEFT_BY_NODES:
        yield Rule("publish", _filter(topic, {}))


def _newcomer(name: str) -> Iterator[Rule]:
    yield from _published(NEWCOMER, {"node": name})
    yield from _read(NEWCOMER, {"node": name})


_RULES = {
    SERVICE: _service,
    NODE: _node,
    SENSOR: _sensor,
    DASHBOARD: _dashboard,
    HOME_ASSISTANT: _home_assistant,
    OPERATOR: _operator,
    ENROLLER: _enroller,
    NEWCOMER: _newcomer,
}


_ELSEWHERE: Mapping[str, tuple[tuple[Access, str], ...]] = {
    ENROLLER: (("publish", CONTROL), ("read", CONTROL)),
    HOME_ASSISTANT: (("publish", DISCOVERY), ("read", DISCOVERY)),
}
"""Rules outside the prefix."""


def _published(role: str, levels: Mapping[str, str]) -> Iterable[Rule]:
    return (Rule("publish", _filter(topic, levels)) for topic in all_topics() if role in topic.publishers)


def _read(role: str, levels: Mapping[str, str]) -> Iterable[Rule]:
    return (Rule("read", _filter(topic, levels)) for topic in all_topics() if role in topic.subscribers)


def _filter(topic: Topic[Any], levels: Mapping[str, str]) -> str:
    """The topics of a pattern with these levels fixed. Answers may have further levels, as tasks may."""
    fixed = topic.pattern.format_map({name: levels.get(name, "+") for name in topic.parameters})
    return f"{fixed}/#" if topic.is_open or topic is ANSWER else fixed
