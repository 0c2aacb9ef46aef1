"""Check whether a part is alive, for HEALTHCHECK: exit code 0 for yes, 1 for no.

    python healthcheck.py service/gateway
    python healthcheck.py node/node-1

It wants two things: the retained status that the part leaves on the broker, which its last will replaces,
and a fresh heartbeat, since the status of a part that died with its broker stays. The broker and prefix are
those of the part: `SPLITPLACE_BROKER`, `SPLITPLACE_PREFIX`, and user name and password where there are any,
in variables of their own, in the URL, or in the file that `SPLITPLACE_CREDENTIALS` names. Client
certificates are `SPLITPLACE_CERTIFICATE` and `SPLITPLACE_KEY`.
"""

import json
import os
import signal
import ssl
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paho.mqtt import client, subscribe

PATIENCE_S = 4


def main() -> int:
    """Return the exit code for the part that the first argument names."""
    known = _credentials()
    broker = urlsplit(os.environ.get("SPLITPLACE_BROKER") or known.get("broker") or "mqtt://127.0.0.1:1883")
    prefix = os.environ.get("SPLITPLACE_PREFIX") or known.get("prefix") or "splitplace/v1"
    username = (
        os.environ.get("SPLITPLACE_USERNAME") or unquote(broker.username or "") or known.get("username")
    )
    password = (
        os.environ.get("SPLITPLACE_PASSWORD") or unquote(broker.password or "") or known.get("password")
    )
    part = sys.argv[1]
    status = f"{prefix}/{part}/status"
    heartbeat = f"{prefix}/{part}/vitals" if part.startswith("node/") else f"{prefix}/metrics/{part}"
    seen: dict[str, bool] = {}

    def on_message(listener: client.Client, _: object, message: client.MQTTMessage) -> None:
        if message.topic == status:
            seen[status] = json.loads(message.payload)["online"]
        elif not message.retain:
            seen[heartbeat] = True
        if seen.get(status) is False or {status, heartbeat} <= seen.keys():
            listener.disconnect()

    signal.alarm(PATIENCE_S)  # silence means waiting for ever: the signal ends that, unhealthy
    subscribe.callback(  # type: ignore[no-untyped-call]
        on_message,
        [status, heartbeat],
        hostname=broker.hostname or "127.0.0.1",
        port=broker.port or (8883 if broker.scheme == "mqtts" else 1883),
        auth={"username": username, "password": password} if username else None,
        clean_session=None,  # of MQTT 3; paho refuses it for MQTT 5
        protocol=client.MQTTv5,
        tls=_tls(known) if broker.scheme == "mqtts" else None,
    )
    return 0 if seen.get(status) and seen.get(heartbeat) else 1


def _credentials() -> dict[str, str]:
    path = os.environ.get("SPLITPLACE_CREDENTIALS")
    return tomllib.loads(Path(path).read_text("utf-8")) if path else {}


def _tls(known: dict[str, str]) -> ssl.SSLContext:
    file = os.environ.get("SPLITPLACE_CA_FILE")
    context = ssl.create_default_context(cafile=file, cadata=None if file else known.get("authority"))
    if certificate := os.environ.get("SPLITPLACE_CERTIFICATE"):
        context.load_cert_chain(certificate, os.environ.get("SPLITPLACE_KEY"))
    return context


if __name__ == "__main__":
    sys.exit(main())
