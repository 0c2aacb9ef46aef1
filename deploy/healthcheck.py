"""Check whether a part is alive, for HEALTHCHECK: exit code 0 for yes, 1 for no.

    python healthcheck.py service/gateway
    python healthcheck.py node/node-1

It wants two things: the retained status that the part leaves on the broker, which its last will replaces,
and a fresh heartbeat, since the status of a part that died with its broker stays. The broker and prefix are
those of the part: `SPLITPLACE_BROKER`, `SPLITPLACE_PREFIX`, and user name and password where there are any,
in variables of their own or in the URL.
"""

import json
import os
import signal
import sys
from urllib.parse import unquote, urlsplit

from paho.mqtt import client, subscribe

PATIENCE_S = 4


def main() -> int:
    """Return the exit code for the part that the first argument names."""
    broker = urlsplit(os.environ.get("SPLITPLACE_BROKER", "mqtt://127.0.0.1:1883"))
    prefix = os.environ.get("SPLITPLACE_PREFIX", "splitplace/v1")
    username = os.environ.get("SPLITPLACE_USERNAME") or unquote(broker.username or "")
    password = os.environ.get("SPLITPLACE_PASSWORD") or unquote(broker.password or "") or None
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
        tls={"ca_certs": os.environ.get("SPLITPLACE_CA_FILE")} if broker.scheme == "mqtts" else None,
    )
    return 0 if seen.get(status) and seen.get(heartbeat) else 1


if __name__ == "__main__":
    sys.exit(main())
