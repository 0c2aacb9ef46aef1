"""The text of a systemd unit for an installation. Pure.

The units beside this module are for a program in `/opt/splitplace` and the manager of the system. `adapted`
changes what is different elsewhere. A manager of a user has fewer rights: what it cannot do is left out.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

Part = Literal["node", "up", "broker"]
"""What a unit runs: a subcommand of `splitplace`."""

UNITS: Final[dict[Part, str]] = {
    "node": "splitplace-node.service",
    "up": "splitplace-services.service",
    "broker": "splitplace-broker.service",
}
ACCOUNT: Final = "splitplace"
"""Who owns the state of broker and services under the system's manager. A node's unit makes its own."""
PACKAGED_PROGRAM: Final = "/opt/splitplace/bin/splitplace"
_NOT_FOR_USERS: Final = (
    *("User=", "DynamicUser=", "StateDirectory=", "StateDirectoryMode=", "WorkingDirectory=", "Nice="),
    *("CapabilityBoundingSet=", "AmbientCapabilities=", "ProtectSystem=", "ProtectHome=", "PrivateTmp="),
    *("PrivateDevices=", "ProtectClock=", "ProtectControlGroups=", "ProtectHostname=", "ProtectKernelLogs="),
    *("ProtectKernelModules=", "ProtectKernelTunables=", "RemoveIPC=", "Wants=network-online.target"),
    *("ProtectProc=", "Requires=sysinit.target", "After=sysinit.target"),
    *("Documentation=", "# It owns the state folder", "# /var/lib/splitplace:"),
)
"""Beginnings of lines that a user's manager refuses, or that mean the system's folders."""
_HOMES: Final = ("/home", "/root", "/run/user")
"""What `ProtectHome=` hides."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whose manager runs a unit, and which program."""

    program: PurePosixPath
    is_for_user: bool = False

    @property
    def settings_folder(self) -> str:
        """Where its settings are, as a unit writes it."""
        return "%h/.config/splitplace" if self.is_for_user else "/etc/splitplace"


def shipped_unit(part: Part) -> str:
    """Return the unit as it stands in the package."""
    return (Path(__file__).parent / UNITS[part]).read_text("utf-8")


def adapted(unit: str, target: Target) -> str:
    """Return a unit for an installation.

    Args:
        unit: a shipped one.
        target: whose manager, and where the program is. The path has no spaces: see `trouble_with`.
    """
    lines = unit.replace(PACKAGED_PROGRAM, str(target.program)).splitlines()
    if target.is_for_user:
        lines = [_for_user(line, target) for line in lines if not line.startswith(_NOT_FOR_USERS)]
    return "\n".join(lines) + "\n"


def trouble_with(target: Target) -> str | None:
    """Return why a unit cannot run this program, None where it can."""
    if any(each in str(target.program) for each in (" ", "%", "$", '"', "\\")):
        return f"{target.program} has signs in its path that systemd reads otherwise: install it elsewhere"
    if not target.is_for_user and any(target.program.is_relative_to(home) for home in _HOMES):
        return (
            f"{target.program} is in a home folder, which services of the system do not see: install into "
            "/opt/splitplace (python3 -m venv /opt/splitplace; then its bin/pip install), or add --user"
        )
    return None


def _for_user(line: str, target: Target) -> str:
    line = line.replace("/etc/splitplace", target.settings_folder)
    if line.startswith("After="):
        return line.replace("network-online.target ", "").replace("network-online.target", "basic.target")
    if line == "[Service]":
        return f"[Service]\nWorkingDirectory=-{target.settings_folder}"
    return line.replace("multi-user.target", "default.target")
