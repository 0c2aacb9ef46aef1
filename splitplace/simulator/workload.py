"""The workload of the hosts: applications with the costs of their fragments, batch sizes and deadlines.

Batches are counted in **items**. In the profile `store` an item is an image. The paper's batches of 16,000 to
64,000 images exceed the size of a task in the live system (1,024 inputs), and its containers run a batch in
one go. So an item of the paper's profiles stands for `IMAGES_PER_ITEM` images, and a fragment computes the
whole batch in one call.
"""

import hashlib
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from splitplace.messages.application import INPUT, Application, Fragment, Stage, Variant, VariantKind
from splitplace.messages.limits import MAX_BATCH
from splitplace.messages.pieces import NamedChain
from splitplace.messages.tensors import TensorSpec
from splitplace.policies.splitting import allows
from splitplace.storage.model_store import ModelStore

PaperProfile = Literal["paper", "paper-bzip2"]

IMAGES_PER_ITEM = 64

BRANCHES = 5
"""Semantic branches of the published code."""

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Applications, and how their tasks are drawn."""

    applications: tuple[Application, ...]
    batch: tuple[int, int]
    """Smallest and largest number of items."""
    deadline_intervals: dict[str, tuple[int, int]]
    """Shortest and longest deadline of each application, in intervals."""
    interval_s: float
    """The scheduling interval that the workload is meant for."""
    images_per_item: int


class _Measured(BaseModel):
    """Measurements of one fragment on `measured_images` images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_s: float
    model_s: float
    in_mb: float
    out_mb: float
    rss_gb: float
    raw_in_mb: float
    raw_out_mb: float

    def unpacked(self) -> Self:
        """Return the fragment without packing: its computing alone, and tensors as they are."""
        return self.model_copy(
            update={"cpu_s": self.model_s, "in_mb": self.raw_in_mb, "out_mb": self.raw_out_mb}
        )


class _Accuracy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: float
    semantic: float


class _Network(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    deadline_intervals: tuple[int, int]
    parameters: int
    branch_parameters: int
    accuracy: _Accuracy
    layers: Annotated[tuple[_Measured, ...], Field(min_length=1)]
    branch: _Measured

    def unpacked(self) -> Self:
        """Return the network without packing."""
        layers = tuple(layer.unpacked() for layer in self.layers)
        return self.model_copy(update={"layers": layers, "branch": self.branch.unpacked()})


class _Profile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    work_scale: dict[PaperProfile, Annotated[float, Field(gt=0)]]
    reference_score: Annotated[float, Field(gt=0)]
    measured_images: int
    part_images: int
    interval_s: float
    batch_images: tuple[int, int]
    compressed_work: float
    compressed_accuracy: float
    application: tuple[_Network, ...]


def paper(work_scale: float | None = None, profile_name: PaperProfile = "paper") -> Workload:
    """Return the paper's applications, as `profiles/paper.toml` describes them.

    Args:
        work_scale: factor on the work of every fragment; None = the calibrated one.
        profile_name: whether fragments only compute, or pack what they send as the published code does.
    """
    text = files("splitplace.simulator").joinpath("profiles", "paper.toml").read_text(encoding="utf-8")
    profile = _Profile.model_validate(tomllib.loads(text))
    scale = profile.work_scale[profile_name] if work_scale is None else work_scale
    networks = profile.application
    if profile_name == "paper":
        networks = tuple(network.unpacked() for network in networks)
    return Workload(
        applications=tuple(_paper_application(profile, network, scale) for network in networks),
        batch=(profile.batch_images[0] // IMAGES_PER_ITEM, profile.batch_images[1] // IMAGES_PER_ITEM),
        deadline_intervals={network.name: network.deadline_intervals for network in profile.application},
        interval_s=profile.interval_s,
        images_per_item=IMAGES_PER_ITEM,
    )


def stored(store: ModelStore) -> Workload:
    """Return the stored applications, as the live system reads them.

    Deadlines are those of the paper's MNIST, 2 to 11 intervals. An interval is a fifth of the longest default
    deadline of the applications. Batches have 16 to 256 images.

    Raises:
        StoreError: the store cannot be used.
        ValueError: the store is empty.
    """
    applications = store.applications()
    if not applications:
        raise ValueError(f"the model store {store} holds no application")
    longest_ms = max(application.default_deadline_ms for application in applications)
    return Workload(
        applications=applications,
        batch=(16, 256),
        deadline_intervals={application.name: (2, 11) for application in applications},
        interval_s=longest_ms / 5000,
        images_per_item=1,
    )


def restricted(workload: Workload, arms: Collection[str]) -> Workload:
    """Return the workload with only the variants that `arms` names, by name or by kind.

    Raises:
        ValueError: an application has none of them.
    """
    applications = []
    for application in workload.applications:
        variants = tuple(
            variant for variant in application.variants if allows(arms, variant.name, variant.kind)
        )
        if not variants:
            known = ", ".join(variant.name for variant in application.variants)
            raise ValueError(f"{application.name} has no variant among {', '.join(arms)}, only {known}")
        applications.append(application.model_copy(update={"variants": variants}))
    return replace(workload, applications=tuple(applications))


def slowed(workload: Workload, factor: Callable[[str], float]) -> Workload:
    """Return the workload with other computing times, by a factor for each application."""
    applications = tuple(
        application.model_copy(
            update={
                "fragments": tuple(_slowed(each, factor(application.name)) for each in application.fragments),
                "chains": tuple(_slowed_chain(each, factor(application.name)) for each in application.chains),
            }
        )
        for application in workload.applications
    )
    return replace(workload, applications=applications)


def _slowed(fragment: Fragment, factor: float) -> Fragment:
    return fragment.model_copy(
        update={
            "milliseconds_per_image": factor * fragment.milliseconds_per_image,
            "milliseconds_per_call": factor * fragment.milliseconds_per_call,
        }
    )


def _slowed_chain(named: NamedChain, factor: float) -> NamedChain:
    costs = tuple(
        cost.model_copy(update={"milliseconds_per_image": factor * cost.milliseconds_per_image})
        for cost in named.costs
    )
    return named.model_copy(update={"costs": costs})


def _paper_application(profile: _Profile, network: _Network, scale: float) -> Application:
    """Build an application without validation, because its tensors exceed the limits of the live system."""
    first, last = network.layers[0], network.layers[-1]
    layers = [
        _fragment(
            profile,
            f"{network.name}/layer-{number}",
            measured,
            scale * measured.cpu_s,
            network.parameters // 4,
        )
        for number, measured in enumerate(network.layers)
    ]
    branches = [
        _fragment(
            profile,
            f"{network.name}/branch-{number}",
            network.branch,
            scale * network.branch.cpu_s,
            network.branch_parameters,
        )
        for number in range(BRANCHES)
    ]
    together = _Measured(
        cpu_s=sum(layer.model_s for layer in network.layers),
        model_s=sum(layer.model_s for layer in network.layers),
        in_mb=first.in_mb,
        out_mb=last.out_mb,
        rss_gb=max(layer.rss_gb for layer in network.layers),
        raw_in_mb=first.raw_in_mb,
        raw_out_mb=last.raw_out_mb,
    )
    pruned = together.model_copy(
        update={
            "cpu_s": together.cpu_s * profile.compressed_work,
            "rss_gb": together.rss_gb * profile.compressed_work,
        }
    )
    kept = round(network.parameters * profile.compressed_work)
    whole = _fragment(profile, f"{network.name}/whole", together, scale * together.cpu_s, network.parameters)
    compressed = _fragment(profile, f"{network.name}/compressed", pruned, scale * pruned.cpu_s, kept)
    accuracy = network.accuracy
    every = tuple(range(BRANCHES))  # equal groups of classes; their members do not matter
    chain = [
        Stage(
            name=f"layer-{n}",
            fragment=fragment.sha256,
            source=f"layer-{n - 1}" if n else INPUT,
            classes=every if fragment is layers[-1] else (),
        )
        for n, fragment in enumerate(layers)
    ]
    star = [
        Stage(name=f"branch-{n}", fragment=fragment.sha256, source=INPUT, classes=(n,))
        for n, fragment in enumerate(branches)
    ]
    return Application.model_construct(
        name=network.name,
        title=f"{network.name} of the paper",
        input=whole.input,
        labels=(),
        default_deadline_ms=1000 * profile.interval_s * network.deadline_intervals[1],
        reference_score=profile.reference_score,
        variants=(
            _variant(
                "whole",
                [Stage(name="whole", fragment=whole.sha256, source=INPUT, classes=every)],
                accuracy.layer,
            ),
            _variant("layer", chain, accuracy.layer),
            _variant("semantic", star, accuracy.semantic),
            _variant(
                "compressed",
                [Stage(name="compressed", fragment=compressed.sha256, source=INPUT, classes=every)],
                accuracy.layer * profile.compressed_accuracy,
            ),
        ),
        fragments=(whole, *layers, *branches, compressed),
        chains=(),
    )


def _variant(kind: VariantKind, stages: list[Stage], accuracy: float) -> Variant:
    """Build a variant that computes a batch in one call."""
    return Variant(
        name=kind,
        kind=kind,
        stages=tuple(stages),
        micro_batch=MAX_BATCH,
        accuracy=accuracy,
        accuracy_images=10_000,
    )


def _fragment(profile: _Profile, name: str, measured: _Measured, cpu_s: float, parameters: int) -> Fragment:
    per_item = IMAGES_PER_ITEM / profile.measured_images
    peak_bytes = round(1e9 * measured.rss_gb * profile.part_images / profile.measured_images)
    return Fragment(
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        file_bytes=4 * parameters,
        weight_bytes=4 * parameters,
        peak_memory_bytes=peak_bytes,
        flops_per_image=0.0,
        milliseconds_per_image=1000 * cpu_s * per_item,
        milliseconds_per_call=0.0,
        input=_tensor(measured.in_mb * MEGABYTE * per_item),
        output=_tensor(measured.out_mb * MEGABYTE * per_item),
    )


def _tensor(bytes_per_item: float) -> TensorSpec:
    """Return a tensor of opaque bytes of the measured size; it may exceed the limits of the live system."""
    return TensorSpec.model_construct(dtype="uint8", shape=(max(1, round(bytes_per_item)),))
