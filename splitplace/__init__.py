"""Run networks that are too big for one small device on several, over MQTT.

`messages`, `services` and `edge_node` are links: their folders stand at the top of the repository
(docs/decisions/0016-one-package.md).
"""

import os

if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    # ONNX Runtime looks up a server of its maker and leaves files in ~/.cache, from its first import on. Set
    # here, because this module is imported before any that imports ONNX Runtime; child processes inherit it.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
