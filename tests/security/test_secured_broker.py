"""What Mosquitto with the files of `splitplace secure init` lets each kind of user do."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from splitplace.commands.secure.authority import Authority
from splitplace.messages.base import Message
from splitplace.messages.topics import (
    ENROLLER,
    GATEWAY,
    OPERATOR,
    SERVICES,
    TASKS,
    Topic,
    all_topics,
)
from splitplace.security.names import SERVICE
from splitplace.security.rules import LEFT_BY_NODES, rules
from tests.support.secured import PREFIX, Refused, Secured, Visitor, secure, secured_broker, visiting
from tests.support.waiting import block_until

pytestmark = pytest.mark.mosquitto


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture(scope="module")
def parts(secured: Secured) -> Iterator[dict[str, Visitor]]:
    """Every service, the operator and the enroller, each with all subscriptions that it may have."""
    with ExitStack() as stack:
        connected = {}
        for name in (*SERVICES, OPERATOR, ENROLLER):
            visitor = stack.enter_context(visiting(secured, name))
            kind = SERVICE if name in SERVICES else name
            for rule in rules(kind, name, PREFIX):
                if rule.access == "read":
                    assert visitor.may_subscribe(rule.topic), rule
            connected[name] = visitor
        yield connected


def name_of(topic: Topic[Any], service: str) -> str:
    sender = "_gateway" if service == GATEWAY else "x"
    levels = {"service": service, "sender": sender, "receiver": "_aggregator"}
    return f"{PREFIX}/{topic.at(**(dict.fromkeys(topic.parameters, 'x') | levels))}"


@pytest.mark.parametrize("topic", [pytest.param(topic, id=topic.pattern) for topic in all_topics()])
def test_services_publish_what_the_table_says_and_nothing_else(
    topic: Topic[Message], parts: dict[str, Visitor]
) -> None:
    cleared = [left.pattern for left in LEFT_BY_NODES]  # after a node was removed
    for name, part in parts.items():
        allowed = name in topic.publishers or (name == ENROLLER and topic.pattern in cleared)
        allowed |= name == GATEWAY and topic in TASKS  # deletes retained ones
        assert part.may_publish(name_of(topic, name)) is allowed, name


@pytest.mark.parametrize(
    "topic",
    [pytest.param(topic, id=topic.pattern) for topic in all_topics() if topic.publishers[0] in SERVICES],
)
def test_what_a_service_publishes_reaches_the_services_that_read_it(
    topic: Topic[Message], parts: dict[str, Visitor]
) -> None:
    publisher = topic.publishers[0]
    name = name_of(topic, publisher)
    assert parts[publisher].may_publish(name)
    readers = [parts[reader] for reader in topic.subscribers if reader in parts]
    block_until(lambda: all(name in reader.received for reader in readers))


@pytest.mark.parametrize("topic", ["#", "+/#", f"{PREFIX}/#", "$SYS/#", "$CONTROL/+", f"$share/g/{PREFIX}/#"])
def test_no_wildcard_reads_more_than_the_rules_say(topic: str, parts: dict[str, Visitor]) -> None:
    assert [name for name, part in parts.items() if name != GATEWAY and part.may_subscribe(topic)] == []


@pytest.mark.parametrize(
    ("username", "password"),
    [(None, None), ("gateway", None), ("gateway", ""), ("gateway", "wrong"), ("nobody", "x"), ("", "")],
)
def test_nobody_comes_in_without_a_password(
    secured: Secured, username: str | None, password: str | None
) -> None:
    authority = secured.credentials(GATEWAY).authority
    with pytest.raises(Refused):
        Visitor(secured.facts, username, password, authority).connect()


def test_the_files_are_readable_by_their_owner_only(secured: Secured) -> None:
    files = [path for path in secured.folder.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    open_to_others = [path for path in files if path.stat().st_mode & 0o077 and path.name != "mosquitto.conf"]
    assert open_to_others == []
    assert secured.folder.path.stat().st_mode & 0o777 == 0o700


def test_no_password_stands_in_plain_text_but_in_its_owners_file(secured: Secured) -> None:
    passwords = {name: secured.credentials(name).password for name in secured.folder.users.names()}
    for path in secured.folder.path.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        found = {name for name, password in passwords.items() if password.encode() in text}
        own = {path.name.removesuffix(".toml")} if path.parent == secured.folder.users.path else set()
        assert found == own, path


def test_a_broker_of_another_authority_gets_no_password(secured: Secured) -> None:
    context = ssl.create_default_context(cadata=Authority.new().pem)
    with (
        socket.create_connection((secured.facts.hosts[0], secured.facts.port)) as connection,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(connection, server_hostname=secured.facts.hosts[0])


def test_a_dashboard_subscribes_to_a_subtree_and_hears_only_what_is_for_it(secured: Secured) -> None:
    assert secure(secured, "add", "dashboard", "wall").code == 0
    with (
        visiting(secured, "wall") as wall,
        visiting(secured, "result-aggregator") as aggregator,
        visiting(secured, "splitter") as splitter,
    ):
        assert wall.may_subscribe(f"{PREFIX}/job/#")
        assert aggregator.may_publish(f"{PREFIX}/job/x/result")
        assert splitter.may_publish(f"{PREFIX}/job/x/decided")
        block_until(lambda: wall.received)
        assert list(wall.received) == [f"{PREFIX}/job/x/decided"]


def test_home_assistant_reads_labels_and_writes_its_own_topics_only(
    secured: Secured, parts: dict[str, Visitor]
) -> None:
    assert secure(secured, "add", "home-assistant", "home").code == 0
    label = f"{PREFIX}/latest/application/digits"
    with visiting(secured, "home") as home:
        assert home.may_subscribe(f"{PREFIX}/latest/application/+")
        assert home.may_subscribe("homeassistant/#")
        assert not home.may_subscribe(f"{PREFIX}/task/#")
        assert parts[GATEWAY].may_publish(label)
        assert home.may_publish("homeassistant/device/x/config")
        assert not home.may_publish(label)
        assert not home.may_publish(f"{PREFIX}/availability/system")
        block_until(lambda: {label, "homeassistant/device/x/config"} <= set(home.received))
