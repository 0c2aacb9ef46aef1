"""Settings of the placer."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import CliImplicitFlag

from splitplace.bus.settings import Settings
from splitplace.messages.limits import MAX_REPLICAS
from splitplace.messages.topics import PLACER
from splitplace.policies.placement import MOST_REPLICAS, PlacementName
from splitplace.policies.placement.loading import LoadingName


class PlacerSettings(Settings):
    """Settings of the placer."""

    user: ClassVar[str] = PLACER

    placement: PlacementName = Field("earliest-finish", description="Policy that chooses nodes.")
    replicas: int = Field(
        MOST_REPLICAS,
        ge=1,
        le=MAX_REPLICAS,
        description="For `earliest-finish`: most nodes that share a stage; with 1, each stage stands on one.",
    )
    seed: int = Field(0, description="Seed of random numbers.")
    warm_up: CliImplicitFlag[bool] = Field(
        default=True, description="Let nodes with free memory load fragments before a task needs them."
    )
    loading: LoadingName = Field(
        "rarest",
        description="What nodes load ahead: what the fewest hold, or what the demand to come asks for "
        "(needs scipy, from the extra `experiments`).",
    )
    loading_s: float = Field(
        10.0, gt=0, description="With `loading = demand`: seconds between two plans of what nodes hold."
    )
    second_runs: CliImplicitFlag[bool] = Field(
        default=True,
        description="Run what is overdue of a task a second time, where that would be in time.",
    )
    fine_tuning: CliImplicitFlag[bool] = Field(
        default=True, description="For `gobi` and `daso`: go on learning from the outcome of placements."
    )
    fine_tuning_s: float = Field(30.0, gt=0, description="For `gobi` and `daso`: seconds between trainings.")
    save_every_s: float = Field(5.0, gt=0, description="Seconds between saves of the state.")
