"""Run networks that are too big for one small device on several, over MQTT.

`messages`, `services` and `edge_node` are links: their folders stand at the top of the repository
(docs/decisions/0016-one-package.md).
"""
