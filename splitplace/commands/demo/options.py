"""What a demo is told."""

from dataclasses import dataclass
from pathlib import Path

from splitplace.errors import SplitPlaceError
from splitplace.policies.pairs import PolicyPair
from splitplace.storage.model_store import ModelStore


class DemoError(SplitPlaceError):
    """The demo could not be carried out."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of a demo."""

    tasks: int
    """Tasks of all sensors together, without those of the first act."""
    nodes: int
    seed: int
    broker: str | None
    """URL of a broker; None starts one."""
    store: ModelStore
    folder: Path
    """Folder for everything that the demo writes."""
    data: Path | None = None
    """Folder of data sets, for applications without samples; None leaves these out."""
    log: Path | None = None
    """File to append decisions and outcomes to, for `splitplace replay`."""
    deadlines: Path | None = None
    """File of tight deadlines: read if it is there, else written."""
    policy: PolicyPair | None = None
    """Split and placement policy; None leaves them to the services' settings."""
    arms: str = "all"
    """Variants to choose among, from the second act on."""
    apart: bool = False
    """Whether each service is a process of its own."""
    shaped: bool = False
    """Whether each node has a link of its own speed instead of the loopback."""
    plain: bool = False
    """Whether to print lines also on a terminal."""
    as_json: bool = False
    """Whether standard output is for the figures alone; words go to standard error."""
