"""Questions and requests to the sockets beneath a paho client."""

import contextlib
import socket
import ssl
import sys
from typing import Any


def is_pending(connection: Any) -> bool:  # noqa: ANN401 - a socket of any kind that paho knows
    """Whether a TLS socket has decrypted bytes that no poll tells of."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


def acknowledge_tcp(connection: Any) -> None:  # noqa: ANN401 - as above
    """Send the TCP acknowledgement of what was just read now, not in 40 ms.

    A broker that leaves Nagle's algorithm on (rumqttd always, Mosquitto by default) holds its next message
    back until then. Linux forgets the option after each use.
    """
    if isinstance(connection, socket.socket) and sys.platform == "linux":
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
