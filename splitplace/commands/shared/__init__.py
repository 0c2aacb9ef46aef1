"""What several commands share: options, exit codes, an MQTT client, a progress bar."""
