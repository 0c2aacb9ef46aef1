"""What to do next when a broker cannot be reached. Pure: judges by the words of the error."""

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

_CLOSED = ("closed before the broker", "connection reset", "closed as soon as")
_WITHOUT_TLS = ("wrong_version_number", "record layer", "unexpected_eof", "eof occurred", *_CLOSED)

OPEN_TO_ALL = (
    "without users, anybody in this network may speak for anybody: secure the system with splitplace "
    "secure init (docs/security.md)"
)

_Table = Sequence[tuple[Sequence[str], str]]

_BY_WORDS: _Table = (
    (
        ("name or service not known", "nodename nor servname", "name resolution", "no address associated"),
        "is the name {host} right? names ending in .local need mDNS; try the IP address",
    ),
    (
        ("mismatch", "certificate is not valid for"),
        "the broker's certificate is not for {host}: use a name that it has in --broker",
    ),
    (
        ("certificate has expired", "not yet valid"),
        "renew the broker's certificate, or set this device's clock: timedatectl set-ntp true",
    ),
    (
        ("certificate_verify_failed",),
        (
            "this device does not know the broker's authority: a node joins with a token (splitplace secure "
            "add node), others name the present --credentials or --ca-file"
        ),
    ),
    (
        ("certificate_required", "certificate required", "handshake_failure"),
        "the broker may want a certificate of this part: --certificate and --key",
    ),
    (
        ("not authorized", "bad user name", "banned"),
        "check --credentials, or --username and SPLITPLACE_PASSWORD, and the broker's access list",
    ),
)
_BY_WORDS_OVER_TLS: _Table = ((_WITHOUT_TLS, "does the broker speak TLS on this port? if not, use mqtt://"),)
_BY_WORDS_AFTERWARDS: _Table = (
    (_CLOSED, "does the broker want TLS (mqtts://)? or does a proxy answer for a broker that is down?"),
    (
        ("no route to host", "network is unreachable", "host is down", "timed out", "timeout"),
        "is this device in the broker's network, and the port open? does the broker want TLS (mqtts://)?",
    ),
    (("",), "start one: splitplace broker, or name it: --broker"),
)


def hint(error: BaseException | str, broker: str) -> str:
    """Return what to do about an error of a connection to a broker, as part of a sentence.

    Args:
        error: What was raised, or its text.
        broker: URL of the broker.
    """
    text = str(error).lower()
    address = urlsplit(broker)
    table: _Table = (
        *_BY_WORDS,
        *(_BY_WORDS_OVER_TLS if address.scheme == "mqtts" else ()),
        *_BY_WORDS_AFTERWARDS,
    )
    advice = next(advice for words, advice in table if any(word in text for word in words))
    return advice.format(host=address.hostname)


def is_loopback(address: str) -> bool:
    """Whether a name or address is this machine's own, where nobody else can listen in."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
