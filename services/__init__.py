"""The five services: independent processes that talk only through MQTT. None imports another."""
