"""Settings of an edge node: name, limits, codec."""

import contextlib
import hashlib
import math
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import CliImplicitFlag
from typing_extensions import override

from splitplace.bus.discovery import FindingSettings
from splitplace.bus.hints import is_loopback
from splitplace.bus.settings import Settings
from splitplace.edge_node.available_memory import Shares, available_bytes, shares
from splitplace.edge_node.cores import quota_cores, usable_cores
from splitplace.edge_node.stage.preparer import TIMEOUT_S
from splitplace.messages.base import Name
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.topics import NODE
from splitplace.policies.cost import COMPRESS_BELOW_MEGABYTES_PER_SECOND
from splitplace.storage.credentials import Credentials, CredentialsError

LOOPBACK_MEGABYTES_PER_SECOND = 1000.0
NETWORK_MEGABYTES_PER_SECOND = 100.0

MOST_QUEUE_MB = 128.0
ASSUMED_MB = 740.0
"""Memory of a system that does not tell: a budget of 422 MiB."""

MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def default_node_name(machine_id_files: Iterable[Path] = MACHINE_ID_FILES) -> str:
    """Return this device's host name, with characters that a topic allows, and a hash of its machine id.

    Every new Raspberry Pi has the same host name. The machine id is not to be published, so only 24 bits of
    its hash are; where there is none, the host name alone must do.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:57].lstrip("_.-") or "node"
    machine_id = _machine_id(machine_id_files)
    return name if machine_id is None else f"{name}-{_short_hash(machine_id)}"


def _machine_id(files: Iterable[Path]) -> str | None:
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            found = file.read_text("ascii").strip()
            if re.fullmatch(r"[0-9a-f]{32}", found):  # it says `uninitialized` before the first boot
                return found
    return None


def _short_hash(machine_id: str) -> str:
    return hashlib.sha256(f"splitplace node {machine_id}".encode()).hexdigest()[:6]


def _shares() -> Shares:
    found = available_bytes()
    return shares(int(ASSUMED_MB * MEBIBYTE) if found is None else found)


class NodeSettings(FindingSettings):
    """Settings of an edge node."""

    join: SecretStr | None = Field(
        None,
        description="Joining token of a secured system, made by `splitplace secure add node NAME`. Good "
        "for one use; later starts need it no more.",
    )
    node: Name = Field(
        default_factory=default_node_name,
        description="Name of this node. By default host name and a hash of the machine id.",
    )
    memory_budget_mb: Annotated[float, Field(gt=0)] = Field(
        default_factory=lambda: _shares().budget_bytes / MEBIBYTE,
        description="Private memory for fragments, in MiB. By default what control groups and device leave.",
    )
    cpu_share: Annotated[float, Field(gt=0, le=1024)] | None = Field(
        None, description="Share of one core that this node is limited to, if it is."
    )
    pacing: CliImplicitFlag[bool] = Field(
        default=False,
        description="Keep to the CPU share by sleeping. Needed where no cgroup quota enforces it.",
    )
    cores: Annotated[int, Field(ge=1, le=4096)] = Field(
        default_factory=lambda: os.cpu_count() or 1, description="Cores of this device. By default all."
    )
    threads: Annotated[int, Field(ge=0, le=4096)] = Field(
        0,
        description="Cores to compute on. 0: those that affinity, CPU quota and CPU share leave, one fewer "
        "where the broker is on this device, because the services are likely to be there too.",
    )
    fragment_dir: Path | None = Field(
        None, description="Folder of fetched fragments. By default `fragments/NODE` in the state folder."
    )
    fragment_store_mb: Annotated[float, Field(gt=0)] = Field(
        2048.0, description="Disk space for files of fragments and their prepared forms, in MiB."
    )
    prepare_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        TIMEOUT_S, description="Give up the preparation of a fragment when it takes longer than this."
    )
    queue_mb: Annotated[float, Field(gt=0)] = Field(
        default_factory=lambda: min(MOST_QUEUE_MB, _shares().queue_bytes / MEBIBYTE),
        description="Memory for incomplete tensors, in MiB, and as much for those that wait to be computed. "
        "By default a tenth of what there is, at most 128.",
    )
    codec: Literal["auto", "raw", "zstd"] = Field(
        "auto", description="Compression of sent tensors. `auto`: zstd if the link is slow."
    )
    link_megabytes_per_second: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Speed of the link to the broker, in MB/s, until it was measured.",
    )
    vitals_every_s: Annotated[float, Field(gt=0, le=60)] = Field(
        1.0, description="Seconds between heartbeats."
    )

    run_limit_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        20.0,
        description="End the process when a run takes longer than this, and than 20 times what is expected.",
    )

    @classmethod
    @override
    def _user(cls, data: Mapping[str, Any]) -> str:
        return str(data.get("node") or "")

    @classmethod
    @override
    def _from_credentials(cls, found: Credentials) -> dict[str, Any]:
        if found.kind != NODE:
            raise CredentialsError(
                f"these are the credentials of the {found.kind} {found.name}: a node needs its own (make a "
                "token with splitplace secure add node NAME)"
            )
        return {"node": found.name} | super()._from_credentials(found)

    @model_validator(mode="after")
    def _speaks_for_itself(self) -> Self:
        if self.credentials is not None and self.client_name != self.node:
            raise ValueError(
                f"the credentials {self.credentials} are those of {self.client_name}: leave out --node"
            )
        return self

    @model_validator(mode="after")
    def _pacing_needs_a_share(self) -> Self:
        if self.pacing and (self.cpu_share is None or self.cpu_share > 1):
            raise ValueError("pacing needs a cpu_share of at most 1 (a paced node computes in one thread)")
        if self.pacing and self.threads > 1:
            raise ValueError("pacing and threads exclude each other (a paced node computes in one thread)")
        return self

    @property
    def usable_threads(self) -> int:
        """Cores to compute on: `threads`, or those that there are."""
        if self.threads or self.pacing:
            return self.threads or 1
        left = min(self.cores, usable_cores(), math.ceil(self.cpu_share or self.cores))
        return max(1, left - 1 if is_loopback(self.host) else left)

    @property
    def share(self) -> float:
        """CPU seconds a second that this node is limited to; infinite if it is not."""
        limits = (self.cpu_share, quota_cores())
        return min([limit for limit in limits if limit is not None], default=math.inf)

    @property
    def pace(self) -> float:
        """Share of one core to keep to by sleeping; 1 for no sleeping."""
        return self.cpu_share if self.pacing and self.cpu_share else 1.0

    @property
    def memory_budget_bytes(self) -> int:
        """`memory_budget_mb` in bytes."""
        return int(self.memory_budget_mb * MEBIBYTE)

    @property
    def fragment_folder(self) -> Path:
        """Folder of fetched fragments."""
        return self.fragment_dir or self.paths.fragments(self.node)

    @property
    def compress(self) -> bool:
        """Whether tensors are compressed before they are sent, before the link was measured."""
        return self.compress_at(None)

    def compress_at(self, measured_megabytes_per_second: float | None) -> bool:
        """Whether tensors are compressed before they are sent, over a link of this speed.

        What is measured to this device itself is the speed of processes, not of a link, and does not count.
        """
        if self.codec != "auto":
            return self.codec == "zstd"
        if is_loopback(self.host):
            speed = self.link_megabytes_per_second or LOOPBACK_MEGABYTES_PER_SECOND
        else:
            speed = (
                measured_megabytes_per_second
                or self.link_megabytes_per_second
                or NETWORK_MEGABYTES_PER_SECOND
            )
        return speed < COMPRESS_BELOW_MEGABYTES_PER_SECOND


class JoinSettings(Settings):
    """What must be known before a node has credentials."""

    join: SecretStr | None = None

    @classmethod
    @override
    def _with_credentials(cls, data: dict[str, Any]) -> dict[str, Any]:
        return data
