"""All settings of a simulation except policy and seed."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from splitplace.messages.limits import MAX_REPLICAS
from splitplace.policies.cost import HOP_MS
from splitplace.policies.placement.loading import LoadingName
from splitplace.services.gateway.task import RetryRules
from splitplace.simulator.arrivals import ArrivalPattern
from splitplace.simulator.calibration import Calibration
from splitplace.simulator.hosts import Machines
from splitplace.simulator.processor import Discipline
from splitplace.simulator.workload import PaperProfile, Workload, paper, stored
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE

Factor = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


MAX_ATTEMPTS = 1000
"""Greatest number that a message can hold."""


class Drift(BaseModel):
    """Some hosts change their speed at one moment, so what a policy has learnt no longer holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_interval: Annotated[float, Field(ge=0)]
    factor: Factor
    """Factor on their speed."""
    share: Share = 1.0
    """Share of the hosts that change, drawn by the seed."""


class Failures(BaseModel):
    """Hosts fail and recover independently, with exponential times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean_intervals_between: Factor
    """MTBF, in intervals: from recovery to failure."""
    mean_intervals_to_repair: Factor = 2.0
    """MTTR, in intervals."""
    detection_s: Annotated[float, Field(ge=0)] = 2.5
    """Time from a failure until the resource monitor detects it."""


class Scenario(BaseModel):
    """Settings of a simulation. None stands for the workload's own value.

    The defaults are the paper's (50 hosts of Table 3, 100 intervals, six tasks each), except that decisions
    are taken as tasks arrive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # --- tasks ---------------------------------------------------------------------------------
    profile: Literal[PaperProfile, "store"] = "paper"
    stores: tuple[Path, ...] = (SHIPPED_STORE,)
    """`profile = "store"`: folders of networks; where two hold the same name, the first one's is used."""
    arms: tuple[str, ...] | None = None
    """Variants or kinds that may be chosen; None = those of the policy (`arms_of`)."""
    mix: Mapping[str, float] | None = None
    """Weight of each application among the arrivals; None = equal weights."""
    rate: Annotated[float, Field(ge=0, le=10_000)] = 6.0
    """Tasks per interval."""
    pattern: ArrivalPattern = "poisson"
    replay: Path | None = None
    """CSV file with arrivals, instead of random ones."""
    deadline_scale: Factor = 1.0
    intervals: Annotated[int, Field(ge=1, le=100_000)] = 100
    drain_intervals: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Longest time after the last interval in which nothing arrives and tasks go on until they end. Energy,
    cost and fairness are those of `intervals`."""
    interval_s: Factor | None = None
    work_scale: Factor | None = None
    """Profiles of the paper: factor on the work of every fragment, instead of the calibrated one."""
    work_noise: Annotated[float, Field(ge=0, le=2)] = 0.1
    """Standard deviation of the logarithm of a task's work relative to the measured work of its fragments."""
    calibration: Calibration | None = None
    """Hops, time before the decision, work and their spread, as fitted to a live run. None: a hop takes
    `cost.HOP_MS`, decisions are taken at once, and work differs by `work_noise`."""

    # --- hosts ------------------------------------------------------------------------------------
    machines: str | None = None
    """A preset or a TOML file of hosts; None = `azure50` for the paper's profiles, `pi4` for `store`."""
    cluster: Machines | None = None
    """The hosts themselves, instead of `machines`."""
    hosts: Annotated[int, Field(ge=1, le=4096)] = 50
    discipline: Discipline = "shared"
    through_broker: bool = False
    """Whether transfers between hosts cross the broker's link, as with MQTT."""
    broker_known: bool = True
    """Whether policies know the bandwidth of that link, as where a user has told it."""
    compute_factor: Factor = 1.0
    network_factor: Factor = 1.0
    memory_factor: Factor = 1.0
    loading: LoadingName | None = None
    """What decides what hosts load ahead, as the placer's setting of this name. Hosts begin with nothing, and
    loading takes memory and time (`simulator/holdings.py`). None: every host has every fragment. Needs the
    discipline `deadline`; not for the policy `oracle`, whose copies of the world have all loaded."""
    loading_s: Factor | None = None
    """With `loading = "demand"`: seconds between two plans; None = ten intervals."""
    overcommit: Factor = 1.0
    """How many times their memory the hosts offer. Above 1, what does not fit is swapped, and computing is
    slower."""
    extra_latency_ms: Annotated[float, Field(ge=0, le=60_000)] = 0.0
    """Added latency of every host, as for a distant cloud."""
    mobility: bool = True
    """Whether links of some hosts follow a trace of moving vehicles."""
    mobility_trace: Path | None = None
    """CSV file to use instead of the bundled trace."""
    failures: Failures | None = None
    drift: Drift | None = None

    # --- decisions -----------------------------------------------------------------------------
    mode: Literal["immediate", "interval"] = "immediate"
    """When decisions are taken: at once, or at the start of each interval as in the paper."""
    rearrange: bool = True
    """In interval mode: whether placement policies that can may move what runs."""
    training_intervals: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Length of the training before the run, in a separate simulation with other random numbers."""
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    """`earliest-finish`: most hosts that share a stage. As in the paper, one; the live default is 4."""
    monitor_s: Factor | None = None
    """Period of the resource monitor's reports; None = five per interval."""
    rules: Literal["product", "live", "paper"] = "product"
    """When the gateway retries and when it gives up (`retry_rules`). `live`: as the live gateway, whose
    times suit tasks of about a second. `product`: the same, scaled to the deadlines of the workload.
    `paper`: late tasks are answered late, nothing stalls, and there are no partial answers."""
    alpha: Share = 0.5
    """Weight of energy in equation 10; beta = 1 - alpha weighs the response time."""
    records: bool = False
    """Whether the result holds a record of every task."""

    @model_validator(mode="after")
    def _loads_like_nodes(self) -> Self:
        """Containers of one task each, which share the processor, are no loaded fragments."""
        if self.loading is not None and self.discipline != "deadline":
            raise ValueError("loading is simulated with the discipline `deadline` only")
        return self

    def workload(self) -> Workload:
        """Return the applications and how tasks are drawn.

        Raises:
            ValueError: the store is empty.
            StoreError: the store cannot be used.
        """
        if self.profile == "store":
            return stored(ModelStore(*self.stores))
        return paper(self.work_scale, self.profile)

    def interval_ms(self, workload: Workload) -> float:
        """Length of an interval."""
        return 1000 * (self.interval_s if self.interval_s is not None else workload.interval_s)

    def retry_rules(self, workload: Workload) -> RetryRules:
        """Return when the gateway retries and when it gives up.

        The live gateway's times suit tasks of about a second. They are scaled by the longest default deadline
        over one second, except for `settle_ms` and `hand_over_ms`, which cover a few messages.
        """
        if self.rules == "paper":
            # In interval mode whatever is announced waits for the next interval anyway.
            pause_ms = 1.0 if self.mode == "interval" else self.interval_ms(workload) / 10
            return RetryRules(
                grace_ms=inf,
                max_attempts=MAX_ATTEMPTS,
                stall_ms=inf,
                pause_ms=pause_ms,
                max_pause_ms=pause_ms,
                least_coverage=1.0,
            )
        live = RetryRules()
        if self.rules == "live":
            return live
        scale = max(application.default_deadline_ms for application in workload.applications) / 1000
        return replace(
            live,
            grace_ms=live.grace_ms * scale,
            stall_ms=live.stall_ms * scale,
            pause_ms=live.pause_ms * scale,
        )

    @property
    def hop_ms(self) -> float:
        """Time of a hop, as the resource monitor tells it."""
        return HOP_MS if self.calibration is None else self.calibration.hop_ms

    @property
    def machines_name(self) -> str:
        """Name of the preset or file of hosts."""
        return self.machines or ("pi4" if self.profile == "store" else "azure50")


CLOUD = {"machines": "azure50", "extra_latency_ms": 150.0, "network_factor": 0.1, "mobility": False}
"""Changes that put the same hosts into a distant cloud: behind a wide-area link, and not moving."""
