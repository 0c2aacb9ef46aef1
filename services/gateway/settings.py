"""Settings of the gateway."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from splitplace.bus.settings import Settings
from splitplace.messages.topics import GATEWAY
from splitplace.services.gateway.task import RetryRules

REPLACE_MS = 300.0
"""Enough for a few messages between services; where it is not, the next attempt begins."""


class GatewaySettings(Settings):
    """How the gateway admits, retries and expires tasks."""

    user: ClassVar[str] = GATEWAY

    journal: Path | None = Field(
        None, description="File of the journal of tasks. By default `gateway.sqlite3` in the state folder."
    )
    durable: bool = Field(
        default=False,
        description="Flush the disk on every write: the journal survives power loss, not only a crash.",
    )
    grace_ms: float = Field(
        500.0, ge=0, description="Send a late answer until this many ms after the deadline."
    )
    max_attempts: int = Field(8, ge=1, le=100, description="Attempts at a task before it fails.")
    stall_ms: float = Field(1500.0, gt=0, description="Retry a task after this many ms without progress.")
    least_coverage: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the classes that a partial answer must cover. 1 disables partial answers.",
    )
    max_tasks: int = Field(2000, ge=1, description="Most unfinished tasks; further tasks are refused.")
    max_input_mb: float = Field(
        256.0, gt=0, description="Most megabytes of inputs of unfinished tasks in memory."
    )
    keep_answers_s: float = Field(
        3600.0, ge=0, description="Seconds for which a task that is sent again gets its old answer."
    )

    @property
    def retry_rules(self) -> RetryRules:
        """When to try again and when to give up."""
        return RetryRules(
            grace_ms=self.grace_ms,
            max_attempts=self.max_attempts,
            stall_ms=self.stall_ms,
            replace_ms=REPLACE_MS,
            least_coverage=self.least_coverage,
        )

    @property
    def journal_file(self) -> Path:
        """Where the journal lies."""
        return self.journal or self.paths.gateway_journal
