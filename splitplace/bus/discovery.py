"""Brokers announce themselves by mDNS, and parts and commands find them where none is named.

What is heard is not to be trusted: anybody in the network may announce anything. So nothing secret is ever
sent to a broker that was found, and users belong to the broker that their credentials name.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from splitplace.bus.settings import DEFAULT_PORT, Settings, as_topic_prefix
from splitplace.errors import ConfigurationError, SplitPlaceError
from splitplace.terminal import printable

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

SERVICE_TYPE = "_splitplace._tcp.local."
FIRST_WITHIN_S = 3.0
"""Time in which a broker of this network answers."""
OTHERS_WITHIN_S = 1.0
"""Time in which others answer after the first."""
MOST_BROKERS = 20
"""More are ignored: somebody floods the network."""
_CONNECT_S = 1.0
_PAUSE_S = 1.0
_LOOPBACK = "127.0.0.1"

Interfaces = Sequence[str] | Literal["all"]
SettingsT = TypeVar("SettingsT", bound="FindingSettings")


class DiscoveryError(SplitPlaceError):
    """Nothing can be announced in this network."""


class FindingSettings(Settings):
    """Settings of a part or command that finds a broker where none is named."""

    discover: bool = Field(
        default=True,
        description="Look for a broker in this network (mDNS) where none is named and none runs here.",
    )


@dataclass(frozen=True, slots=True, order=True)
class FoundBroker:
    """A broker that somebody announces."""

    name: str
    """Host name and port, as it calls itself."""
    address: str
    port: int
    prefix: str
    has_users: bool
    """Whether it lets in users only, over TLS."""

    @property
    def url(self) -> str:
        """URL for the setting `broker`."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'mqtts' if self.has_users else 'mqtt'}://{host}:{self.port}"

    def __str__(self) -> str:
        """Return it as people choose between several."""
        users = "with users" if self.has_users else "without users"
        return printable(f"{self.url}  {self.name}, topics below {self.prefix}, {users}")


@contextlib.contextmanager
def announcing(
    addresses: Sequence[str], port: int, prefix: str, *, has_users: bool, interfaces: Interfaces = "all"
) -> Iterator[None]:
    """Tell this network where a broker is, for as long as the context lasts.

    Raises:
        DiscoveryError: mDNS cannot be used here.
    """
    import zeroconf  # noqa: PLC0415 - costs 0.1 s, and few commands need it

    name = f"{socket.gethostname().partition('.')[0]}-{port}"
    info = zeroconf.ServiceInfo(
        SERVICE_TYPE,
        f"{name}.{SERVICE_TYPE}",
        port=port,
        parsed_addresses=list(addresses),
        properties={"prefix": prefix, "users": "1" if has_users else "0"},
        server=f"{name}.splitplace.local.",  # not the host's own name, for which its own responder answers
    )
    try:
        multicast = _multicast(interfaces)
    except OSError as error:
        raise DiscoveryError(f"mDNS cannot be used here: {error}") from error
    with contextlib.closing(multicast):
        try:
            multicast.register_service(info)
        except zeroconf.NonUniqueNameException:
            pass  # another process of this device announces the same broker
        except (OSError, zeroconf.Error) as error:
            raise DiscoveryError(f"mDNS cannot be used here: {error!r}") from error
        yield


def find_brokers(*, interfaces: Interfaces = "all") -> Sequence[FoundBroker]:
    """Return the brokers that are announced in this network, sorted. Takes some seconds where none is."""
    import zeroconf  # noqa: PLC0415 - costs 0.1 s, and few commands need it

    found: dict[str, FoundBroker] = {}
    arrived = threading.Event()

    def on_change(
        zeroconf: "Zeroconf", service_type: str, name: str, state_change: zeroconf.ServiceStateChange
    ) -> None:
        if state_change.name != "Added" or len(found) >= MOST_BROKERS:
            return
        info = zeroconf.get_service_info(service_type, name)
        broker = None if info is None else _broker(info)
        if broker is not None:
            found[name] = broker
            arrived.set()

    try:
        multicast = _multicast(interfaces)
    except OSError:  # no network, or no multicast in it: nobody can be found
        return ()
    with contextlib.closing(multicast):
        browser = zeroconf.ServiceBrowser(multicast, SERVICE_TYPE, handlers=[on_change])
        if arrived.wait(FIRST_WITHIN_S):
            time.sleep(OTHERS_WITHIN_S)
        browser.cancel()
    return sorted(found.values())


def with_broker(
    settings: SettingsT,
    *,
    find: Callable[[], Sequence[FoundBroker]] = find_brokers,
    ask: Callable[[Sequence[FoundBroker]], FoundBroker] | None = None,
) -> SettingsT:
    """Return settings for the broker to use: that which is named, or runs here, or is announced.

    The settings are returned as they are where there is no other broker, or none may be looked for.

    Raises:
        ConfigurationError: somebody has to choose between several, or the only one wants users.
    """
    if not _is_to_be_found(settings):
        return settings
    found = find()
    if not found:
        return settings
    chosen = found[0] if len(found) == 1 else (ask or _ask)(found)
    if chosen.has_users:
        raise ConfigurationError(
            f"the broker that was found, {chosen}, lets in users only: on a device that shall be a node use "
            "splitplace node --join TOKEN, else --credentials FILE (both are made by splitplace secure add)"
        )
    prefix = {} if "prefix" in settings.model_fields_set else {"prefix": chosen.prefix}
    sys.stderr.write(f"found {chosen}\n")
    return settings.model_copy(update={"broker": chosen.url, **prefix})


def wait_for_broker(
    settings: SettingsT, *, find: Callable[[], Sequence[FoundBroker]] = find_brokers
) -> SettingsT:
    """Return settings for the broker to use as `with_broker` does, and look until there is one.

    Raises ConfigurationError.
    """
    is_told = False
    while True:
        settings = with_broker(settings, find=find)
        if not _is_to_be_found(settings):
            return settings
        if not is_told:
            sys.stderr.write(
                "no broker runs here, and none is announced in this network: waiting for one (--broker "
                "names another)\n"
            )
            is_told = True
        time.sleep(_PAUSE_S)


def _is_to_be_found(settings: FindingSettings) -> bool:
    """Whether no broker is named, none runs here, and others may be looked for."""
    return (
        "broker" not in settings.model_fields_set
        and settings.discover
        and settings.password is None  # it would be sent to whoever announces a broker
        and not listens(_LOOPBACK, DEFAULT_PORT)
    )


def _ask(found: Sequence[FoundBroker]) -> FoundBroker:
    """Let the user choose. Raises ConfigurationError where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        listed = "\n  ".join(map(str, found))
        raise ConfigurationError(f"several brokers were found; name one with --broker:\n  {listed}")
    for number, each in enumerate(found, 1):
        sys.stderr.write(f"{number}  {each}\n")
    while True:
        sys.stderr.write(f"Which broker (1 to {len(found)})? ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            raise ConfigurationError("no broker was chosen; name one with --broker")
        if answer.strip().isdigit() and 1 <= int(answer) <= len(found):
            return found[int(answer) - 1]


def _multicast(interfaces: Interfaces) -> "Zeroconf":
    import zeroconf  # noqa: PLC0415

    chosen: Any = zeroconf.InterfaceChoice.All if interfaces == "all" else list(interfaces)
    return zeroconf.Zeroconf(interfaces=chosen, ip_version=zeroconf.IPVersion.V4Only)


def _broker(info: "ServiceInfo") -> FoundBroker | None:
    """Return what an announcement says; None where it makes no sense."""
    texts = {
        key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")
        for key, value in info.properties.items()
    }
    addresses = info.parsed_addresses()[:8]
    port = info.port
    if not addresses or not port:
        return None
    try:
        prefix = as_topic_prefix(texts.get("prefix", ""))
    except ValueError:
        return None
    reachable = next((each for each in addresses if listens(each, port)), addresses[0])
    name = info.name.removesuffix(f".{SERVICE_TYPE}")
    return FoundBroker(name, reachable, port, prefix, has_users=texts.get("users") == "1")


def listens(address: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection((address, port), _CONNECT_S).close()
    except OSError:
        return False
    return True
