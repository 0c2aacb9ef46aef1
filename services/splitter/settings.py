"""Settings of the splitter."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from splitplace.bus.settings import StoreSettings
from splitplace.messages.limits import MAX_REPLICAS
from splitplace.messages.topics import SPLITTER
from splitplace.policies.placement import MOST_REPLICAS
from splitplace.policies.splitting import MARGIN, TOLERANCE, MabMode, SplitName, parse_arms


class SplitterSettings(StoreSettings):
    """Settings of the splitter."""

    user: ClassVar[str] = SPLITTER

    policy: SplitName = Field("expected-reward", description="Policy that decides how to split.")
    arms: str = Field(
        "all",
        description="Variants to choose from: `all`, `paper` (layer,semantic), or a list with commas.",
    )
    mab_mode: MabMode = Field("running", description="For `mab`: how to explore, in training or after it.")
    warm_start: Path | None = Field(
        None, description="Saved state of another run, used until there is one of this splitter."
    )
    margin: float = Field(
        MARGIN, ge=0.1, le=100, description="For `rule`: factor on predictions until more is learnt."
    )
    tolerance: float = Field(
        TOLERANCE,
        ge=0,
        le=100,
        description="For `rule`: share of the slack that the fastest variant may be late by.",
    )
    replicas: int = Field(
        MOST_REPLICAS,
        ge=1,
        le=MAX_REPLICAS,
        description="Most nodes that share a stage, as the placer's: what it will do is foreseen.",
    )
    seed: int = Field(0, description="Seed of random numbers.")
    look_every_s: float = Field(
        2.0,
        gt=0,
        description="Seconds between looks at the model store: whether an application came, changed or went.",
    )
    save_every_s: float = Field(5.0, gt=0, description="Seconds between saves of the state.")

    @field_validator("arms")
    @classmethod
    def _names_arms(cls, arms: str) -> str:
        parse_arms(arms)
        return arms
