"""Announcing a broker from a command, beside its work: what others can reach is announced."""

import contextlib
import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator, Sequence

from splitplace.bus.discovery import DiscoveryError, Interfaces, announcing, listens
from splitplace.terminal import printable

_RETRY_S = 1.0


@contextlib.contextmanager
def announced(
    addresses: Sequence[str], port: int, prefix: str, *, has_users: bool, interfaces: Interfaces = "all"
) -> Iterator[None]:
    """Announce a broker by mDNS until the context ends, once it listens. What fails is said in one line.

    Args:
        addresses: under which others reach this device; or those and names of another.
        port: of the broker.
        prefix: first levels of all topics.
        has_users: whether it lets in users only, over TLS.
        interfaces: addresses of the interfaces to use.
    """
    ended = threading.Event()

    def announce() -> None:
        reachable = _wait_until_reachable(addresses, port, ended)
        if not reachable:
            return
        with announcing(reachable, port, prefix, has_users=has_users, interfaces=interfaces):
            print(f"announced in this network: {', '.join(reachable)}, port {port}", flush=True)
            ended.wait()

    def try_to_announce() -> None:
        try:
            announce()
        except DiscoveryError as error:
            _say(f"not announced in this network: {error}")

    thread = threading.Thread(target=try_to_announce, name="announce", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wait_until_reachable(addresses: Sequence[str], port: int, ended: threading.Event) -> Sequence[str]:
    """Return the addresses on which the broker listens, once there are some; none where the work ends."""
    is_told = False
    while not ended.is_set():
        with contextlib.suppress(OSError):  # a name that nobody resolves yet
            reachable = [each for each in _resolved(addresses) if listens(each, port)]
            if reachable:
                return reachable
        if not is_told:
            _say(
                f"not announced yet: nobody listens on port {port} of {', '.join(addresses) or 'a network'} "
                "(splitplace broker --host 0.0.0.0 lets it listen for others)"
            )
            is_told = True
        ended.wait(_RETRY_S)
    return ()


def _resolved(addresses: Sequence[str]) -> Sequence[str]:
    """Return addresses in place of names. Raises OSError."""
    found: list[str] = []
    for each in addresses:
        try:
            found.append(str(ipaddress.ip_address(each)))
        except ValueError:
            found += [str(entry[4][0]) for entry in socket.getaddrinfo(each, None, type=socket.SOCK_STREAM)]
    return tuple(dict.fromkeys(found))


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
