"""Settings of the resource monitor."""

from typing import ClassVar

from pydantic import Field

from splitplace.bus.settings import Settings
from splitplace.messages.cluster import Bandwidth
from splitplace.messages.topics import RESOURCE_MONITOR
from splitplace.services.resource_monitor.core import (
    FORGET_AFTER_MS,
    LINK_MEGABYTES_PER_SECOND,
    SILENT_AFTER_MS,
)


class ResourceMonitorSettings(Settings):
    """Settings of the resource monitor."""

    user: ClassVar[str] = RESOURCE_MONITOR

    silent_after_ms: float = Field(
        SILENT_AFTER_MS, ge=100, description="A node is offline after this many ms without a heartbeat."
    )
    forget_after_s: float = Field(
        FORGET_AFTER_MS / 1000, gt=0, description="Forget a node after this many seconds offline."
    )
    link_megabytes_per_second: float = Field(
        LINK_MEGABYTES_PER_SECOND,
        gt=0,
        description="Assumed speed of a link that was not measured yet, in MB/s.",
    )
    broker_megabytes_per_second: Bandwidth | None = Field(
        None,
        description="Speed of the link of the broker's machine in MB/s, which all tasks share. "
        "Not given = it never limits a transfer.",
    )
