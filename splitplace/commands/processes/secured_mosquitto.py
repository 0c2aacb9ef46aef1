"""Mosquitto with TLS and users: the dynamic-security plugin, and the lines of configuration."""

from collections.abc import Mapping
from pathlib import Path

from splitplace.errors import SplitPlaceError

USERS_FILE = "dynamic-security.json"
"""File of the plugin, in the broker's secured folder."""

_PLUGIN = "mosquitto_dynamic_security.so"
_FOLDERS = ("usr/lib/*", "usr/lib", "usr/lib64", "usr/local/lib", "usr/local/lib/*", "opt/homebrew/lib")


class NoPluginError(SplitPlaceError):
    """Mosquitto's plugin is missing."""


def plugin_path(root: Path = Path("/")) -> Path:
    """Return the path of the plugin, which comes with Mosquitto 2. Raises NoPluginError."""
    for folder in _FOLDERS:
        for path in sorted(root.glob(f"{folder}/{_PLUGIN}")):
            return path
    raise NoPluginError(
        f"{_PLUGIN} is not installed: it comes with Mosquitto 2.0.11 and later (apt install mosquitto); "
        "name it with --plugin where it lies elsewhere"
    )


def secured_settings(folder: Path, plugin: Path) -> Mapping[str, str]:
    """Return the lines of a configuration that let in users only, and only over TLS.

    Args:
        folder: with certificate, key and users; absolute.
        plugin: the dynamic-security plugin.
    """
    return {
        "certfile": f"{folder}/broker.pem",
        "keyfile": f"{folder}/broker.key",
        "tls_version": "tlsv1.2",  # at least
        "plugin": str(plugin),
        "plugin_opt_config_file": f"{folder}/{USERS_FILE}",
        "allow_anonymous": "false",
    }
