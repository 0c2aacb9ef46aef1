"""Groupings: the stages into which a placement groups the pieces of a variant's chain. Pure.

A variant with `most_stages` is one grouping of many. A placement may choose another, whose fragments no
manifest lists: everybody derives them from the chain's pieces, so a message names a run of pieces only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import INPUT, Application, Fragment, Stage, Variant
from splitplace.messages.limits import MAX_TENSOR_BYTES
from splitplace.messages.measured_memory import MeasuredRun, foreseen_memory
from splitplace.messages.pieces import NamedChain, PieceRun, RunTotals, as_described, bundle_bytes
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced


class GroupingError(SplitPlaceError, ValueError):
    """A placement does not fit its application: there is no such variant, run of pieces, or grouping."""


@dataclass(frozen=True, slots=True)
class GroupedVariant:
    """A variant whose stages were chosen anew."""

    variant: Variant
    fragments: Mapping[str, Fragment]
    """By the stage's name."""
    runs: Mapping[str, PieceRun]
    """The pieces of every stage; empty if the stages are those of the manifest."""


def free_chain(application: Application, variant: Variant) -> NamedChain | None:
    """Return the chain whose pieces may be grouped anew for a variant; None if its stages are fixed."""
    if variant.most_stages is None:
        return None
    name = application.fragment(variant.stages[0].fragment).chain
    return None if name is None else application.chain(name)


def cut_places(application: Application, named: NamedChain) -> tuple[int, ...]:
    """Return the numbers of pieces at which a stage may begin, beside the first.

    What crosses there must be small enough to be sent for a whole micro-batch.
    """
    most = MAX_TENSOR_BYTES // _micro_batch(application, named.name)
    return tuple(
        place
        for place, bundle in enumerate(named.chain.bundles[1:-1], start=1)
        if bundle_bytes(bundle) <= most
    )


def derived_fragment(application: Application, run: PieceRun, totals: RunTotals | None = None) -> Fragment:
    """Return the fragment of any run of pieces; one that the manifest describes as it is there.

    Its costs are the sums of those of its pieces. The time of a call is that of the described runs.

    Args:
        application: Its manifest.
        run: The pieces.
        totals: What they cost together, if that is known: whoever asks for all runs adds up each row once.

    Raises:
        GroupingError: The application has no such chain or run.
    """
    for known in application.fragments:
        if (known.chain, known.first, known.end) == (run.chain, run.first, run.end):
            return known
    try:
        named = application.chain(run.chain)
        stage = named.chain.stage(run.first, run.end)
    except (KeyError, ValueError) as error:
        raise GroupingError(f"{run.chain} has no pieces {run.first} to {run.end}") from error
    (source, sources), (result, results) = as_described(stage.inputs), as_described(stage.outputs)
    if totals is None:
        *_, totals = islice(named.totals_from(run.first), run.end - run.first)
    described = [known for known in application.fragments if known.chain == run.chain]
    activation_bytes = _micro_batch(application, run.chain) * totals.activation_bytes_per_image
    return Fragment(
        sha256=stage.sha256,
        file_bytes=totals.file_bytes,
        weight_bytes=totals.weight_bytes,
        peak_memory_bytes=totals.weight_bytes + activation_bytes,
        flops_per_image=totals.flops_per_image,
        milliseconds_per_image=totals.milliseconds_per_image,
        largest_weight_bytes=totals.largest_weight_bytes,
        output_ratio=totals.output_ratio,
        milliseconds_per_call=max([known.milliseconds_per_call for known in described], default=0.0),
        input=source,
        output=result,
        inputs=sources,
        outputs=results,
        chain=run.chain,
        first=run.first,
        end=run.end,
        memory=foreseen_memory(_measured(described), totals.weight_bytes, activation_bytes),
    )


def _measured(fragments: Iterable[Fragment]) -> list[MeasuredRun]:
    return [
        MeasuredRun(each.weight_bytes, each.peak_memory_bytes - each.weight_bytes, each.memory)
        for each in fragments
        if each.memory is not None
    ]


def grouped(application: Application, variant: Variant, cuts: Sequence[int]) -> GroupedVariant:
    """Return a variant with stages that begin at the given pieces.

    Args:
        application: Its manifest.
        variant: One with `most_stages`.
        cuts: Numbers of pieces, ascending; none for a single stage.

    Raises:
        GroupingError: The stages of the variant are fixed, there are too many cuts, or one is impossible.
    """
    named = free_chain(application, variant)
    if named is None:
        raise GroupingError(f"{variant.name}: its stages are fixed")
    ends = pairwise((0, *cuts, len(named.chain.pieces)))
    return _of_runs(
        application, variant, [PieceRun(chain=named.name, first=first, end=end) for first, end in ends]
    )


def placed_variant(application: Application, placed: TaskPlaced) -> Variant:
    """Return the variant of a placement, with the stages that were chosen for it.

    Raises:
        GroupingError: The application has no such variant, or the placement's runs are no grouping of it.
    """
    return as_placed(application, placed).variant


def as_placed(application: Application, placed: TaskPlaced) -> GroupedVariant:
    """Return the stages of a placement and their fragments. Raises as `placed_variant` does."""
    return with_stages(application, placed.variant, placed.stages)


def as_placed_again(application: Application, placed: TaskPlaced) -> GroupedVariant:
    """Return the stages of a second run: all, or those of some branches.

    Raises:
        GroupingError: As `placed_variant`; or the stages are not those of branches.
    """
    whole = as_placed(application, placed)
    names = {share.stage for share in placed.stages}
    some = whole.variant.model_copy(
        update={"stages": tuple(stage for stage in whole.variant.stages if stage.name in names)}
    )
    sinks = {stage.name for stage in whole.variant.sinks}
    if names != {name for sink in sinks & names for name in path_to(whole.variant, sink)}:
        raise GroupingError(f"{placed.variant}: {', '.join(sorted(names))} are not the stages of branches")
    return GroupedVariant(some, whole.fragments, whole.runs)


def path_to(variant: Variant, name: str) -> tuple[str, ...]:
    """Return the stages from the input to the stage `name`, in their order. Raises KeyError."""
    sources = {stage.name: stage.source for stage in variant.stages}
    path, source = [name], sources[name]
    while source != INPUT:
        path.append(source)
        source = sources[source]
    return tuple(path[::-1])


def with_stages(application: Application, name: str, stages: Iterable[StagePlacement]) -> GroupedVariant:
    """Return a variant, by its name, with the stages that were placed. Raises as `placed_variant` does."""
    try:
        variant = application.variant(name)
    except KeyError:
        raise GroupingError(f"{application.name} has no variant {name}") from None
    runs = {stage.stage: stage.run for stage in stages if stage.run is not None}
    if not runs:
        fragments = {stage.name: application.fragment(stage.fragment) for stage in variant.stages}
        return GroupedVariant(variant, fragments, {})
    named = free_chain(application, variant)
    ordered = sorted(runs.values(), key=lambda run: run.first)
    ends = [(run.chain, run.first, run.end) for run in ordered]
    if named is None or not _covers(ends, named):
        raise GroupingError(f"{name}: the runs of the placement are not all pieces of a chain")
    return _of_runs(application, variant, ordered)


def stage_name(run: PieceRun) -> str:
    """Return the name of a stage that was grouped anew: the numbers of its first and last piece."""
    return f"{run.first}-{run.end - 1}"


def _covers(ends: Sequence[tuple[str, int, int]], named: NamedChain) -> bool:
    found = [(chain, place) for chain, first, end in ends for place in range(first, end)]
    return found == [(named.name, place) for place in range(len(named.chain.pieces))]


def _of_runs(application: Application, variant: Variant, runs: Sequence[PieceRun]) -> GroupedVariant:
    if len(runs) > (variant.most_stages or 1):
        raise GroupingError(f"{variant.name}: {len(runs)} stages, at most {variant.most_stages} are allowed")
    fragments = {stage_name(run): derived_fragment(application, run) for run in runs}
    last = variant.sinks[0]
    stages: list[Stage] = []
    source: str = INPUT
    for name, fragment in fragments.items():
        is_last = len(stages) == len(runs) - 1
        stages.append(
            Stage(
                name=name,
                fragment=fragment.sha256,
                source=source,
                classes=last.classes if is_last else (),
                accuracy=last.accuracy if is_last else None,
            )
        )
        source = name
    return GroupedVariant(
        variant.model_copy(update={"stages": tuple(stages)}),
        fragments,
        dict(zip(fragments, runs, strict=True)),
    )


def _micro_batch(application: Application, chain: str) -> int:
    """Return the most images in a micro-batch of the variants of a chain."""
    members = {known.sha256 for known in application.fragments if known.chain == chain}
    return max(
        variant.micro_batch
        for variant in application.variants
        if any(stage.fragment in members for stage in variant.stages)
    )
