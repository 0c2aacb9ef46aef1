"""Settings of the gateway."""

from pathlib import Path

from pydantic import Field

from splitplace.bus.settings import Settings


class GatewaySettings(Settings):
    """How the gateway admits, repeats and expires tasks."""

    journal: Path | None = Field(
        None, description="file of the journal of tasks; default: gateway.sqlite3 in the state folder"
    )
    durable: bool = Field(
        default=False, description="flush the disk on every write: survives power loss, not only a crash"
    )
    grace_ms: float = Field(
        500.0, ge=0, description="how long after its deadline a late answer is still sent"
    )
    max_attempts: int = Field(8, ge=1, le=100, description="tries at running a task before it fails")
    stall_ms: float = Field(1500.0, gt=0, description="a task that did not move for so long is tried again")
    least_coverage: float = Field(
        0.0, ge=0, le=1, description="share of the classes a partial answer must cover; 1: no partial answers"
    )
    max_tasks: int = Field(2000, ge=1, description="unfinished tasks; more are refused as overload")
    max_input_mb: float = Field(256.0, gt=0, description="inputs of unfinished tasks held in memory")
    keep_answers_s: float = Field(3600.0, ge=0, description="how long a repeated task id gets its old answer")

    @property
    def journal_file(self) -> Path:
        """Where the journal lies."""
        return self.journal or self.paths.gateway_journal
