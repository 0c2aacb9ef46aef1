"""Commands that measure the figures of the README and of docs/performance.md, and print them."""

import splitplace as splitplace  # before ONNX Runtime: it switches the telemetry off
