"""Under which addresses other devices reach this one."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

import psutil


def own_addresses() -> Sequence[str]:
    """Return the addresses of this device but loopback, the most useful first, then IPv4 before IPv6."""
    try:
        interfaces = psutil.net_if_addrs()
    except OSError:  # a sandbox without netlink sockets
        interfaces = {}
    found = [
        ip_address(address.address)
        for interface in interfaces.values()
        for address in interface
        if address.family in {socket.AF_INET, socket.AF_INET6} and "%" not in address.address
    ]
    others = sorted((each for each in found if not each.is_loopback), key=lambda each: each.version)
    return tuple(dict.fromkeys((*_address_on_the_way_out(), *map(str, others))))


def _address_on_the_way_out() -> Sequence[str]:
    """The address with which this device reaches others: not that of a bridge between containers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # kept for documentation; nothing is sent
        except OSError:
            return ()
        found: str = probe.getsockname()[0]
    return () if ip_address(found).is_loopback else (found,)
