"""A secured broker for tests, and users of it that publish and read what they are let."""

import contextlib
import io
import queue
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from splitplace.bus.settings import Settings
from splitplace.commands.main import main
from splitplace.commands.processes.broker import Broker, free_port, started_broker
from splitplace.commands.processes.secured_mosquitto import plugin_path
from splitplace.commands.secure.facts import Facts
from splitplace.commands.secure.init import initialise
from splitplace.security.tokens import Token, parse_token
from splitplace.storage.credentials import Credentials
from splitplace.storage.secured import SecuredFolder
from tests.support.brokers import own_loopback

PREFIX = "splitplace/v1"
WAIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Secured:
    """A system with users: its files, and its broker, which runs."""

    state_dir: Path
    folder: SecuredFolder
    facts: Facts
    broker: Broker

    def credentials(self, name: str) -> Credentials:
        """Those of a user with a file."""
        return Credentials.load(self.folder.users.file(name))

    def settings(self, name: str) -> Settings:
        """The settings of a user with a file."""
        return Settings(credentials=self.folder.users.file(name))


@contextlib.contextmanager
def secured_broker(state_dir: Path) -> Iterator[Secured]:
    """A Mosquitto with users and rules as `splitplace secure init` makes them."""
    host = own_loopback()
    facts = Facts((host, "127.0.0.1", "localhost"), free_port(host), PREFIX, str(plugin_path()))
    folder = SecuredFolder(state_dir / "secure")
    initialise(folder, facts)
    for name in folder.users.names():  # whose broker listens on an address of its own
        kept = Credentials.load(folder.users.file(name))
        Credentials(**{**_fields(kept), "broker": facts.url}).save(folder.users.file(name))
    with started_broker(
        folder.broker, kind="mosquitto", host=host, port=facts.port, secured=folder.broker
    ) as broker:
        yield Secured(state_dir, folder, facts, broker)


def _fields(credentials: Credentials) -> dict[str, str]:
    names = ("kind", "name", "broker", "prefix", "username", "password", "authority")
    return {name: getattr(credentials, name) for name in names}


class Refused(Exception):  # noqa: N818 - as a sentence: the broker refused
    """The broker did not let somebody in."""


@dataclass
class Visitor:
    """One connection to a secured broker, by whatever name and password: honest or not."""

    facts: Facts
    username: str | None
    password: str | None
    authority: str
    client_id: str = ""
    session_s: int | None = None
    """How long the broker keeps the session of one that is away; None for a session that begins anew."""
    will: tuple[str, bytes] | None = None
    received: dict[str, bytes] = field(default_factory=dict)
    is_gone: bool = False
    has_session: bool = False
    """Whether the broker has kept a session from before."""

    def __post_init__(self) -> None:
        self._connected: queue.Queue[ReasonCode] = queue.Queue()
        self._granted: queue.Queue[bool] = queue.Queue()
        self._acknowledged: queue.Queue[ReasonCode] = queue.Queue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        if self.username is not None:
            self._client.username_pw_set(self.username, self.password)
        self._client.tls_set_context(ssl.create_default_context(cadata=self.authority))
        if self.will is not None:
            self._client.will_set(*self.will, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_publish = lambda _client, _data, _id, reason, _more: self._acknowledged.put(reason)
        self._client.on_subscribe = lambda _client, _data, _id, codes, _more: self._granted.put(
            not codes[0].is_failure
        )
        self._client.on_disconnect = self._on_disconnect

    def _on_connect(
        self, _client: object, _data: object, flags: paho.ConnectFlags, reason: ReasonCode, _more: object
    ) -> None:
        self.has_session = flags.session_present
        self._connected.put(reason)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.received[message.topic] = bytes(message.payload)

    def _on_disconnect(self, *_: object) -> None:
        self.is_gone = True

    def connect(self) -> "Visitor":
        """Raises Refused."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if self.session_s is not None:
            properties.SessionExpiryInterval = self.session_s
        self._client.connect(
            self.facts.hosts[0], self.facts.port, clean_start=self.session_s is None, properties=properties
        )
        self._client.loop_start()
        reason = self._connected.get(timeout=WAIT_S)
        if reason.is_failure:
            self.close()
            raise Refused(str(reason))
        return self

    def may_publish(
        self,
        topic: str,
        payload: bytes = b"x",
        *,
        retain: bool = False,
        response: str = "",
        user: Mapping[str, str] | None = None,
    ) -> bool:
        """Publishes on a full topic, and says whether the broker took it."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response:
            properties.ResponseTopic = response
        if user:
            properties.UserProperty = list(user.items())
        self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return not self._acknowledged.get(timeout=WAIT_S).is_failure

    def may_subscribe(self, topic: str) -> bool:
        """Subscribes to a filter, and says whether the broker granted it."""
        self._client.subscribe(topic, qos=1)
        return self._granted.get(timeout=WAIT_S)

    def break_off(self) -> None:
        """End the connection without a goodbye: the broker publishes the will."""
        connection = self._client.socket()
        assert connection is not None
        connection.close()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def visiting(secured: Secured, name: str, **changes: str) -> Iterator[Visitor]:
    """A user with a file, connected; `changes` replace fields of Visitor."""
    own = secured.credentials(name)
    fields = {"username": own.username, "password": own.password, "authority": own.authority, **changes}
    visitor = Visitor(secured.facts, **fields).connect()  # type: ignore[arg-type]
    try:
        yield visitor
    finally:
        visitor.close()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command has written, and its exit code."""

    code: int
    out: str
    errors: str


def splitplace(*arguments: str) -> Shown:
    """Run a command in this process: a new interpreter for each would take most of the time."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            main(list(arguments))
        except SystemExit as ended:
            return Shown(int(ended.code or 0), out.getvalue(), errors.getvalue())
    raise AssertionError("main ends with SystemExit")


def secure(secured: Secured, *arguments: str) -> Shown:
    """Run `splitplace secure ...` on a system."""
    return splitplace("secure", *arguments, "--state-dir", str(secured.state_dir))


def token_for(
    secured: Secured, node: str, *options: str, command: tuple[str, ...] = ("add", "node")
) -> Token:
    """Have a joining token made."""
    shown = secure(secured, *command, node, *options)
    assert shown.code == 0, shown.errors
    return parse_token(shown.out.partition("--join ")[2].splitlines()[0])


def secure_in_thread(secured: Secured, *arguments: str) -> bool:
    """Run `splitplace secure ...` where a loop runs already; return whether it succeeded."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(secure, secured, *arguments).result().code == 0
