"""The command `home-assistant`: tell Home Assistant by MQTT discovery what there is."""
