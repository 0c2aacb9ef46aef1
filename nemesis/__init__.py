"""Run the whole system under faults and hostile input, and check what it promised (docs/nemesis.md).

A black box: it speaks MQTT, starts the product by its command line and imports nothing of it.
"""
