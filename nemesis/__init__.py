"""Run the whole system under faults and hostile input, and check what it promised (docs/nemesis.md).

A black box: it speaks MQTT, starts the product by its command line and imports nothing of it.
"""

import os

# Before ONNX Runtime is imported, which looks up a server of its maker otherwise.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
