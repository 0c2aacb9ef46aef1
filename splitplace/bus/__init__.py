"""One small MQTT connection for everybody."""
