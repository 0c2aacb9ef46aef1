"""Settings of the splitter."""

from pathlib import Path

from pydantic import Field, field_validator

from splitplace.bus.settings import StoreSettings
from splitplace.policies.splitting import MARGIN, TOLERANCE, MabMode, SplitName, parse_arms


class SplitterSettings(StoreSettings):
    """How tasks are split."""

    policy: SplitName = Field("expected-reward", description="how to decide")
    arms: str = Field(
        "all", description="what it may choose: all, paper (layer,semantic), or variants or kinds with commas"
    )
    mab_mode: MabMode = Field("running", description="mab: how to explore, while training or afterwards")
    warm_start: Path | None = Field(
        None, description="file with the memory of another run, used while there is none of our own"
    )
    margin: float = Field(
        MARGIN, ge=0.1, le=100, description="rule: predictions are multiplied by this until more is learnt"
    )
    tolerance: float = Field(
        TOLERANCE,
        ge=0,
        le=100,
        description="rule: share of the slack that the fastest may exceed and still be tried",
    )
    seed: int = Field(0, description="of random numbers")
    save_every_s: float = Field(5.0, gt=0, description="how often what was learnt is saved")

    @field_validator("arms")
    @classmethod
    def _names_arms(cls, arms: str) -> str:
        parse_arms(arms)
        return arms
