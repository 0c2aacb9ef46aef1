"""What several commands share: options, output, an MQTT client, a progress bar, lazy loading."""
