"""What the policies plan: a batch as a variant."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from splitplace.messages.application import INPUT, Application, Fragment, Variant
from splitplace.messages.groupings import GroupedVariant
from splitplace.messages.pieces import PieceRun

MAX_JOBS = 128
"""Batches of applications whose jobs are kept."""


@dataclass(frozen=True)
class Job:
    """One batch, run as one variant."""

    application: Application
    variant: Variant
    batch: int
    cut: int | None = None
    """Most images in a micro-batch, if fewer than the variant's."""
    grouped: GroupedVariant | None = None
    """The variant, if its stages were chosen anew."""

    def regrouped(self, grouped: GroupedVariant) -> Self:
        """Return the same job in other stages."""
        return replace(self, variant=grouped.variant, grouped=grouped)

    @property
    def runs(self) -> Mapping[str, PieceRun]:
        """The pieces of every stage, by its name; empty unless the stages were chosen anew."""
        return {} if self.grouped is None else self.grouped.runs

    @cached_property
    def fragments(self) -> Mapping[str, Fragment]:
        """Fragment of every stage, by the stage's name."""
        if self.grouped is not None:
            return self.grouped.fragments
        known = {fragment.sha256: fragment for fragment in self.application.fragments}
        return {stage.name: known[stage.fragment] for stage in self.variant.stages}

    @cached_property
    def sinks(self) -> frozenset[str]:
        """Names of the stages whose output goes to the aggregator."""
        return frozenset(stage.name for stage in self.variant.sinks)

    @cached_property
    def input_bytes(self) -> Mapping[str, float]:
        """Bytes that each stage gets, by the stage's name: `input_bytes`."""
        return input_bytes(self.variant, self.fragments, self.batch)

    @cached_property
    def carried_bytes(self) -> float:
        """Bytes that the broker sends to nodes for it."""
        return sum(self.input_bytes.values())

    @cached_property
    def micro_batch(self) -> int:
        """Images in one micro-batch: as the variant says, or fewer."""
        return min(self.variant.micro_batch, self.batch, self.cut or self.batch)

    @cached_property
    def micro_batches(self) -> tuple[int, ...]:
        """Sizes of all micro-batches; only the last may be smaller."""
        return micro_batches(self.batch, self.micro_batch)


def micro_batches(batch: int, micro_batch: int) -> tuple[int, ...]:
    """Return the sizes of all micro-batches of a batch; only the last may be smaller."""
    full, rest = divmod(batch, micro_batch)
    return (micro_batch,) * full + ((rest,) if rest else ())


def input_bytes(variant: Variant, fragments: Mapping[str, Fragment], batch: int) -> Mapping[str, float]:
    """Return the bytes that each stage gets for a batch, compressed as its manifest says.

    Args:
        variant: what runs.
        fragments: that of every stage, by the stage's name.
        batch: number of inputs.
    """
    sizes = {}
    for stage in variant.stages:
        left = 1.0 if stage.source == INPUT else fragments[stage.source].output_ratio
        sizes[stage.name] = batch * left * fragments[stage.name].input_bytes_per_image
    return sizes


class Jobs:
    """Batches as each variant of their application: what follows from a job is found once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[Application, dict[str, Job]]] = {}

    def of(self, application: Application, batch: int) -> Mapping[str, Job]:
        """Return the jobs of a batch by variant."""
        key = application.name, batch
        kept = self._kept.get(key)
        if kept is None or kept[0] is not application:
            if kept is None and len(self._kept) >= MAX_JOBS:
                del self._kept[next(iter(self._kept))]
            jobs = {variant.name: Job(application, variant, batch) for variant in application.variants}
            kept = self._kept[key] = application, jobs
        return kept[1]
