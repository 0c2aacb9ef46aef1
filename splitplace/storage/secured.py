"""Where the files of a secured system lie, and which credentials a part finds there by itself.

`splitplace secure init` makes the folder; on a device that has joined it holds the credentials of its node.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from splitplace.storage.credentials import SUFFIX, Credentials, CredentialsError

SYSTEMD_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a unit with `LoadCredential=`."""

SYSTEMD_NAME = "splitplace"
"""The credential that a unit is expected to load: `LoadCredential=splitplace:FILE`."""


@dataclass(frozen=True, slots=True)
class SecuredFolder:
    """The folder of a secured system."""

    path: Path

    @property
    def users(self) -> "UsersFolder":
        """A file of credentials for each user."""
        return UsersFolder(self.path / "users")

    @property
    def broker(self) -> Path:
        """Everything that the broker needs: configuration, certificate, users."""
        return self.path / "broker"

    @property
    def authority(self) -> Path:
        """The authority's folder, with its key: it may be kept elsewhere."""
        return self.path / "authority"

    @property
    def facts(self) -> Path:
        """What is no secret: names of the broker, port, prefix."""
        return self.path / "secured.toml"


@dataclass(frozen=True, slots=True)
class UsersFolder:
    """A folder with a file of credentials for each user."""

    path: Path

    def file(self, name: str) -> Path:
        """Return the path of a user's file. Any name makes a file of this folder."""
        return self.path / f"{quote(name, safe='')}{SUFFIX}"

    def names(self) -> Iterator[str]:
        """Yield the names of users with a file here, sorted."""
        for path in sorted(self.path.glob(f"*{SUFFIX}")):
            yield unquote(path.name.removesuffix(SUFFIX))

    def existing(self, user: str) -> Path:
        """Return a user's file; that of the only node where the user has no name. Raises CredentialsError."""
        path = self.file(user) if user else self._only_node()
        if not path.is_file():
            raise CredentialsError(
                f"this system has users, and there are no credentials for {user!r}: {path} is missing (make "
                "them with splitplace secure add, or name a file with --credentials)"
            )
        return path

    def _only_node(self) -> Path:
        nodes = [path for path in map(self.file, self.names()) if Credentials.load(path).kind == "node"]
        if len(nodes) != 1:
            raise CredentialsError(
                f"{self.path} holds credentials of {len(nodes) or 'no'} nodes: choose one with --node "
                "NAME, or join with --join TOKEN (made by splitplace secure add node NAME)"
            )
        return nodes[0]


def find_credentials(
    given: Path | None, folder: SecuredFolder, user: str, *, environment: Mapping[str, str] = os.environ
) -> Path | None:
    """Return the file of credentials that a part shall use; None where it has none.

    Args:
        given: the setting: a file, or a folder with a file for each user.
        folder: of the secured system in the state folder, which may not exist.
        user: what the part is called; empty for a node that has no name yet.
        environment: variables of this process.

    Raises:
        CredentialsError: a folder has no file for this user.
    """
    if given is not None:
        return given if not given.is_dir() else _users(given).existing(user)
    loaded = Path(environment.get(SYSTEMD_VARIABLE, "")) / SYSTEMD_NAME
    if SYSTEMD_VARIABLE in environment and loaded.is_file():
        return loaded
    return folder.users.existing(user) if folder.users.path.is_dir() else None


def _users(folder: Path) -> UsersFolder:
    within = SecuredFolder(folder).users
    return within if within.path.is_dir() else UsersFolder(folder)
