"""Where files lie by default (docs/files.md). Names paths only: nothing is read or created here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from platformdirs import PlatformDirs
from platformdirs.api import PlatformDirsABC

SHIPPED_STORE: Final = Path(__file__).parents[1] / "shipped_store"
"""The networks that come with the package. Never written to, except by those who build them."""

SYSTEMD_VARIABLE: Final = "STATE_DIRECTORY"
"""Set by systemd for a unit with `StateDirectory=`; several folders are separated by colons."""

_PLATFORM: Final = PlatformDirs("splitplace", appauthor=False)


@dataclass(frozen=True, slots=True)
class Paths:
    """The state folder with the fixed names below it, and the folder of the user's own networks."""

    state_dir: Path
    own_store: Path

    @property
    def gateway_journal(self) -> Path:
        """The gateway's tasks, an SQLite database."""
        return self.state_dir / "gateway.sqlite3"

    @property
    def splitter_state(self) -> Path:
        """What the splitter's policy has learnt."""
        return self.state_dir / "splitter.json"

    @property
    def placer_state(self) -> Path:
        """What the placer's policy has learnt."""
        return self.state_dir / "placer.json"

    @property
    def gateway_client_id(self) -> Path:
        """The secret part of the client id under which the broker keeps tasks for the gateway."""
        return self.state_dir / "gateway.client-id"

    @property
    def calibration(self) -> Path:
        """Constants of the simulator, fitted to a run of this system."""
        return self.state_dir / "calibration.json"

    @property
    def dashboard_history(self) -> Path:
        """What the dashboard remembers of tasks and minutes, an SQLite database."""
        return self.state_dir / "dashboard.sqlite3"

    @property
    def dashboard_token(self) -> Path:
        """What a browser must show to the dashboard, where a token is wanted."""
        return self.state_dir / "dashboard.token"

    @property
    def broker(self) -> Path:
        """Configuration, log and database of a broker that `splitplace broker` starts."""
        return self.state_dir / "broker"

    @property
    def secured(self) -> Path:
        """Certificates and credentials of a system with users (`splitplace secure init`)."""
        return self.state_dir / "secure"

    @property
    def logs(self) -> Path:
        """Logs of the services that `splitplace up` starts."""
        return self.state_dir / "log"

    @property
    def up_lock(self) -> Path:
        """Locked by the `splitplace up` that uses this folder."""
        return self.state_dir / "up.lock"

    @property
    def demos(self) -> Path:
        """A folder for each demo that runs, failed or was kept."""
        return self.state_dir / "demo"

    @property
    def trainings(self) -> Path:
        """Checkpoints of `splitplace models train` and `build`."""
        return self.state_dir / "trainings"

    @property
    def unfinished(self) -> Path:
        """What `splitplace models add` has made of networks that it was interrupted at."""
        return self.state_dir / "unfinished"

    @property
    def pages(self) -> Path:
        """Reports and result pages that were not given another folder."""
        return self.state_dir / "pages"

    def fragments(self, node: str) -> Path:
        """Fragments that the node has fetched."""
        return self.state_dir / "fragments" / node


def resolve_paths(
    state_dir: Path | None = None,
    own_store: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    platform: PlatformDirsABC = _PLATFORM,
) -> Paths:
    """Return the paths of an installation.

    Args:
        state_dir: The setting of that name. Without it: the folder that systemd gives the unit, or else the
            platform's folder for state.
        own_store: The setting of that name. Without it: `store` in a state folder that was given (by the
            setting or by systemd), or else in the platform's folder for data.
        environment: Variables of this process.
        platform: The platform's folders.
    """
    given = state_dir or _from_systemd(environment)
    root = given.expanduser() if given else platform.user_state_path
    store = own_store.expanduser() if own_store else (root if given else platform.user_data_path) / "store"
    return Paths(root, store)


def _from_systemd(environment: Mapping[str, str]) -> Path | None:
    first = environment.get(SYSTEMD_VARIABLE, "").partition(":")[0]
    return Path(first) if first else None
