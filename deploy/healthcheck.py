"""Check whether a part is online, for HEALTHCHECK: exit code 0 for yes, 1 for no.

    python healthcheck.py service/gateway
    python healthcheck.py node/node-1

It reads the retained status that the part leaves on the broker and that its last will replaces, so a part
that has lost the broker is unhealthy too. The broker and prefix are those of the part: `SPLITPLACE_BROKER`,
`SPLITPLACE_PREFIX`, and user name and password where there are any.
"""

import json
import os
import signal
import sys
from urllib.parse import urlsplit

from paho.mqtt import client, subscribe

PATIENCE_S = 4


def main() -> int:
    """Return the exit code for the part that the first argument names."""
    broker = urlsplit(os.environ.get("SPLITPLACE_BROKER", "mqtt://127.0.0.1:1883"))
    prefix = os.environ.get("SPLITPLACE_PREFIX", "splitplace/v1")
    username = os.environ.get("SPLITPLACE_USERNAME")
    signal.alarm(PATIENCE_S)  # nothing retained means waiting for ever: the signal ends that, unhealthy
    message = subscribe.simple(  # type: ignore[no-untyped-call]
        f"{prefix}/{sys.argv[1]}/status",
        hostname=broker.hostname or "127.0.0.1",
        port=broker.port or (8883 if broker.scheme == "mqtts" else 1883),
        auth={"username": username, "password": os.environ.get("SPLITPLACE_PASSWORD")} if username else None,
        protocol=client.MQTTv5,
        tls={"ca_certs": os.environ.get("SPLITPLACE_CA_FILE")} if broker.scheme == "mqtts" else None,
    )
    return 0 if json.loads(message.payload)["online"] else 1


if __name__ == "__main__":
    sys.exit(main())
