"""What one would write instead of SplitPlace: one process, one network, paho and ONNX Runtime. The rival.

    python benchmarks/thirty_lines.py HOST PORT MODEL.onnx

No split, no deadline, no journal: whoever asks while it is away, or sends nonsense, hears nothing.
"""

import io
import json
import socket
import sys
from typing import Any

import msgpack
import numpy as np
import onnxruntime as ort
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image

host, port, model = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name


def answer(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:  # noqa: ANN401 - paho's
    """Answer a task."""
    sensor, task = message.topic.split("/")[-2:]
    pictures = [
        Image.open(io.BytesIO(file)).convert("L") for file in msgpack.unpackb(message.payload)["images"]
    ]
    (logits,) = session.run(None, {name: np.stack([np.asarray(picture)[None] for picture in pictures])})
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    best = [{"label": str(row.argmax()), "confidence": float(row.max())} for row in shares]
    reply = {"task": task, "client": sensor, "status": "answered", "predictions": best}
    client.publish(f"splitplace/v1/answer/{sensor}/{task}", json.dumps(reply), qos=1)


client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_message = answer
client.on_socket_open = lambda *given: given[2].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
client.connect(host, int(port))
client.subscribe("splitplace/v1/task/mnist/+/+", qos=1)
client.loop_forever()
