"""Rules are made from the topic table: who publishes a topic may publish it, who reads it may read it."""

import pytest

from splitplace.commands.secure.users import AddedKind
from splitplace.messages.topics import (
    DASHBOARD,
    ENROLLER,
    HOME_ASSISTANT,
    NEWCOMER,
    NODE,
    OPERATOR,
    RESULT_AGGREGATOR,
    SENSOR,
    SERVICES,
    TASK,
    all_topics,
)
from splitplace.security.names import ADDABLE, SERVICE
from splitplace.security.rules import CONTROL, Rule, rules

P = "splitplace/v1"


def of(kind: str, name: str, access: str, prefix: str = P) -> set[str]:
    return {rule.topic for rule in rules(kind, name, prefix) if rule.access == access}


def test_a_sensor_writes_its_own_tasks_and_reads_its_own_answers() -> None:
    assert of(SENSOR, "camera", "publish") == {
        f"{P}/task/+/camera",
        f"{P}/task/+/camera/+",
        f"{P}/task/+/camera/+/+/#",
    }
    assert of(SENSOR, "camera", "read") == {
        f"{P}/answer/camera/+/#",
        f"{P}/application/+",
        f"{P}/service/gateway/status",
        f"{P}/metrics/service/gateway",
    }


def test_a_node_sends_tensors_to_anybody_as_itself_only() -> None:
    published, read = of(NODE, "n1", "publish"), of(NODE, "n1", "read")
    assert f"{P}/tensor/+/n1" in published
    assert f"{P}/tensor/n1/+" in read
    assert all("/n1/" in topic for topic in published if topic.startswith(f"{P}/node/"))
    assert not any("tensor" in topic for topic in read - {f"{P}/tensor/n1/+"})
    assert not any(
        topic.startswith((f"{P}/job", f"{P}/cluster", f"{P}/answer")) for topic in published | read
    )


def test_tensors_for_the_aggregator_are_read_by_it_alone() -> None:
    inbox = f"{P}/tensor/_aggregator/+"
    assert inbox in of(SERVICE, RESULT_AGGREGATOR, "read")
    assert f"{P}/tensor/+/_gateway" in of(SERVICE, "gateway", "publish")
    for service in set(SERVICES) - {RESULT_AGGREGATOR}:
        assert not any("/tensor/" in topic for topic in of(SERVICE, service, "read"))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_announces_itself_and_nobody_else(service: str) -> None:
    statuses = {topic for topic in of(SERVICE, service, "publish") if "/service/" in topic}
    assert statuses == {
        f"{P}/{topic}"
        for topic in (
            f"service/{service}/status",
            f"metrics/service/{service}",
            f"availability/service/{service}",
        )
    }


def test_every_topic_has_a_writer_and_a_reader() -> None:
    """Except tasks without a sensor's name: where there are users, tasks are signed by their topic."""
    everybody = [*((SERVICE, name) for name in SERVICES), (NODE, "x"), (SENSOR, "x"), (DASHBOARD, "x")]
    everybody += [(ENROLLER, ENROLLER), (NEWCOMER, "x"), (HOME_ASSISTANT, "x")]
    for access in ("publish", "read"):
        allowed = set().union(*(of(kind, name, access) for kind, name in everybody))
        for topic in all_topics():
            name = topic.at(**dict.fromkeys(topic.parameters, "x"))
            name = name.replace("service/x", "service/gateway")
            if topic is not TASK or access == "read":
                assert any(_matches(rule, f"{P}/{name}") for rule in allowed), (access, topic.pattern)


def test_people_can_add_users_of_every_kind_that_is_for_them() -> None:
    assert {kind.value for kind in AddedKind} == set(ADDABLE)


def test_only_the_enroller_commands_the_broker() -> None:
    assert Rule("publish", CONTROL) in rules(ENROLLER, ENROLLER, P)
    for kind in (SERVICE, NODE, SENSOR, DASHBOARD, OPERATOR, NEWCOMER):
        topics = {rule.topic for rule in rules(kind, "gateway" if kind == SERVICE else "x", P)}
        assert not any(topic.startswith(("$", "#", "+")) for topic in topics), kind


def test_a_newcomer_may_ask_and_nothing_else() -> None:
    assert of(NEWCOMER, "n1", "publish") == {f"{P}/join/n1/request"}
    assert of(NEWCOMER, "n1", "read") == {f"{P}/join/n1/answer"}


def test_a_dashboard_only_reads_and_sees_neither_pictures_nor_answers() -> None:
    assert of(DASHBOARD, "wall", "publish") == set()
    hidden = tuple(f"{P}/{level}" for level in ("task", "answer", "tensor", "fragment", "join"))
    read = of(DASHBOARD, "wall", "read")
    assert not any(topic.startswith(hidden) for topic in read)
    assert f"{P}/job/#" in of(DASHBOARD, "wall", "subscribe")
    assert f"{P}/job/+/decided" in read
    assert f"{P}/job/+/result" not in read


def test_home_assistant_writes_its_own_topics_only_and_sees_labels_but_no_pictures() -> None:
    assert of(HOME_ASSISTANT, "home", "publish") == {"homeassistant/#"}
    more = of(HOME_ASSISTANT, "home", "read") - of(DASHBOARD, "home", "read")
    assert more == {"homeassistant/#", f"{P}/latest/sensor/+", f"{P}/latest/application/+"}


def test_all_rules_stand_below_the_prefix_but_those_of_the_enroller() -> None:
    for kind, name in ((SERVICE, "gateway"), (NODE, "n"), (SENSOR, "s"), (OPERATOR, "o")):
        assert all(rule.topic.startswith("home/ai/") for rule in rules(kind, name, "home/ai"))


def _matches(rule: str, topic: str) -> bool:
    wanted, given = rule.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in {"+", given[index]}:
            return False
    return len(wanted) == len(given)
