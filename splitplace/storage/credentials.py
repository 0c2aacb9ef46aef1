"""Files of credentials: all that one user needs to connect to a secured broker, for its owner's eyes only."""

import json
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from splitplace.errors import ConfigurationError
from splitplace.storage.replace import replace_file

SUFFIX = ".toml"
ONLY_OWNER = 0o600
_KEYS = ("kind", "name", "broker", "prefix", "username", "password", "authority")
_OPTIONAL = ("client_id", "token")


class CredentialsError(ConfigurationError):
    """A file of credentials cannot be used."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One user of a secured broker."""

    kind: str
    """service, node, sensor, dashboard, operator or enroller."""
    name: str
    """What the user is called in topics."""
    broker: str
    """URL, `mqtts://`."""
    prefix: str
    username: str
    """What it logs in with: the name, or the name with a number after a rotation."""
    password: str = field(repr=False)
    token: str = field(default="", kw_only=True)
    """Mark of the token with which a node has joined."""
    client_id: str = field(default="", kw_only=True)
    """The only MQTT client id with which the broker lets it in; empty = any."""
    authority: str
    """Certificates of the authorities that may have signed the broker's, in PEM."""

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only. Raises OSError."""
        owner = f"{self.kind} {json.dumps(self.name)}"
        lines = [f"# Credentials of the {owner}: whoever reads them can speak for it."]
        lines += [f"{key} = {_quoted(getattr(self, key))}" for key in _KEYS if key != "authority"]
        lines += [f"{key} = {_quoted(value)}" for key in _OPTIONAL if (value := getattr(self, key))]
        lines.append(f'authority = """\n{self.authority.strip()}\n"""')
        replace_file(path, "\n".join([*lines, ""]).encode(), mode=ONLY_OWNER)

    @classmethod
    def load(cls, path: Path) -> "Credentials":
        """Read a file. Raises CredentialsError."""
        try:
            fields = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise CredentialsError(f"cannot read the credentials {path}: {error.strerror}") from error
        except ValueError:  # without its text, which may quote a secret
            raise CredentialsError(f"{path} does not hold credentials: it is not TOML") from None
        more = {key: str(fields.get(key, "")) for key in _OPTIONAL}
        wrong = [key for key in _KEYS if not isinstance(fields.get(key), str) or not fields[key]]
        if wrong:
            raise CredentialsError(
                f"{path} does not hold credentials: {', '.join(wrong)} missing (make them with: "
                "splitplace secure init, splitplace secure add)"
            )
        return cls(**{key: fields[key] for key in _KEYS}, **more)


def is_open_to_others(path: Path) -> bool:
    """Whether somebody else than its owner may read a file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
