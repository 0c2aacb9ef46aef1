"""What `init` noted of a secured system and is no secret: names of the broker, port, prefix."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from splitplace.errors import ConfigurationError
from splitplace.storage.paths import Paths
from splitplace.storage.replace import replace_file
from splitplace.storage.secured import SecuredFolder


@dataclass(frozen=True, slots=True)
class Facts:
    """A secured system."""

    hosts: tuple[str, ...]
    """Names and addresses in the broker's certificate; the first is what other devices are told."""
    port: int
    prefix: str
    plugin: str
    """Path of Mosquitto's plugin."""

    @property
    def url(self) -> str:
        """URL of the broker for other devices."""
        host = self.hosts[0]
        return f"mqtts://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def local_url(self) -> str:
        """URL of the broker on its own machine."""
        return f"mqtts://127.0.0.1:{self.port}"

    def save(self, path: Path) -> None:
        """Write the file. Raises OSError."""
        lines = (
            "# Made by `splitplace secure init`. Nothing here is secret.",
            f"hosts = {json.dumps(self.hosts)}",
            f"port = {self.port}",
            f"prefix = {json.dumps(self.prefix, ensure_ascii=False)}",
            f"plugin = {json.dumps(self.plugin, ensure_ascii=False)}",
            "",
        )
        replace_file(path, "\n".join(lines).encode(), mode=0o600)

    @classmethod
    def load(cls, path: Path) -> "Facts":
        """Read the file. Raises ConfigurationError."""
        try:
            found = tomllib.loads(path.read_text("utf-8"))
            return cls(tuple(found["hosts"]), found["port"], found["prefix"], found["plugin"])
        except FileNotFoundError:
            raise ConfigurationError(
                f"this system has no users: {path} is missing (make it with: splitplace secure init)"
            ) from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error!r}") from error


def secured_folder(paths: Paths) -> SecuredFolder:
    """Return the secured folder of a state folder, which may not exist."""
    return SecuredFolder(paths.secured)
