"""Who the broker knows, as its plugin lists it, with what we noted of each login. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from splitplace.security.names import role_parts


@dataclass(frozen=True, slots=True)
class Note:
    """What is kept with a login, in the plugin's field for descriptions."""

    expires_s: float | None = None
    """When the enroller removes it, in seconds since 1970; None = never."""
    login: str = ""
    """The login that a newcomer gets; empty for others."""

    def __str__(self) -> str:
        """Return it as text for the plugin."""
        return json.dumps({name: value for name, value in asdict(self).items() if value})

    @classmethod
    def read(cls, text: str) -> "Note":
        """Return what a text says; nothing where somebody else wrote it."""
        try:
            found = json.loads(text or "{}")
        except ValueError:
            return cls()
        expires_s, login = found.get("expires_s"), found.get("login")
        return cls(
            expires_s if isinstance(expires_s, int | float) else None, login if isinstance(login, str) else ""
        )


@dataclass(frozen=True, slots=True)
class Login:
    """One name and password that the broker knows."""

    kind: str
    name: str
    login: str
    note: Note

    def has_expired(self, now_s: float) -> bool:
        """Whether it shall not be used any more."""
        return self.note.expires_s is not None and self.note.expires_s <= now_s


def logins(clients: Iterable[Mapping[str, Any]]) -> tuple[Login, ...]:
    """Return the logins that are ours in the plugin's list of clients."""
    found = []
    for client in clients:
        for role in client.get("roles", ()):
            parts = role_parts(str(role.get("rolename", "")))
            if parts is not None:
                note = Note.read(str(client.get("textdescription", "")))
                found.append(Login(*parts, str(client["username"]), note))
    return tuple(found)


def kind_of(name: str, known: Iterable[Login]) -> str | None:
    """Return the kind to which a name belongs; None where nobody has it."""
    return next((login.kind for login in known if login.name == name), None)
