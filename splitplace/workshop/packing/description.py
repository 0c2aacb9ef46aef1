"""Describe chains and fragments from their files, and time them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.messages.application import Application, Fragment
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.pieces import NamedChain, PieceCost, as_described
from splitplace.workshop.cutting.profile import BATCHES, MOST_SECONDS, Timing, time_runtimes
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.packing.unfinished import NOTHING, Unfinished
from splitplace.workshop.pieces.chain import TimedChain
from splitplace.workshop.pieces.loaded import joined_graph

MOST_WEIGHT_BYTES = 512 * MEBIBYTE
"""Fragments with more weights in all are loaded and timed one after the other."""

Load = Callable[[Fragment], FragmentRuntime]
"""A function that loads a fragment of an application."""

_TIMINGS: Final[TypeAdapter[Sequence[Timing]]] = TypeAdapter(Sequence[Timing])


def described(
    folder: Path,
    chain: NamedChain,
    first: int = 0,
    end: int | None = None,
    *,
    micro_batch: int,
    whole: Graph | None = None,
) -> Fragment:
    """Describe a run of pieces; its times are still 0.

    Args:
        folder: Folder with the files of the chain.
        chain: The chain.
        first: Number of the first piece.
        end: Number of the piece after the last one; None for all.
        micro_batch: Images for which the peak memory is stated.
        whole: The network that was cut, where it is at hand.

    Returns:
        The description. FLOPs, weights and peak memory come from the graph: the peak is the weights plus the
        greatest sum of tensors that are live at once.

    Raises:
        PieceError: A file is missing or damaged.
        GraphError: The graph does not tell a shape or size that is needed.
    """
    last = len(chain.chain.pieces) if end is None else end
    stage = chain.chain.stage(first, last)
    graph = Graph(joined_graph(folder, stage), whole)
    (source, sources), (result, results) = as_described(stage.inputs), as_described(stage.outputs)
    return Fragment(
        sha256=stage.sha256,
        file_bytes=sum(file.file_bytes for file in stage.files),
        weight_bytes=graph.weight_bytes,
        peak_memory_bytes=graph.weight_bytes + micro_batch * graph.peak_activation_bytes_per_image,
        flops_per_image=float(graph.flops_per_image),
        milliseconds_per_image=0.0,
        milliseconds_per_call=0.0,
        input=source,
        output=result,
        inputs=sources,
        outputs=results,
        chain=chain.name,
        first=first,
        end=last,
        largest_weight_bytes=graph.largest_weight_bytes,
        output_ratio=chain.costs[last - 1].output_ratio,
    )


def with_costs(folder: Path, name: str, timed: TimedChain, whole: Graph | None = None) -> NamedChain:
    """Return a chain with the costs of its pieces.

    Args:
        folder: Folder with the files of the chain.
        name: Name of the chain.
        timed: The chain, and the time of each piece.
        whole: The network that was cut, where it is at hand.

    Raises:
        PieceError: A file is missing or damaged.
        GraphError: The graph does not tell a shape or size that is needed.
    """
    chain, costs = timed.cut.chain, []
    for index, (time_ms, ratio) in enumerate(zip(timed.milliseconds, timed.output_ratios, strict=True)):
        graph = Graph(joined_graph(folder, chain.stage(index, index + 1)), whole)
        costs.append(
            PieceCost(
                milliseconds_per_image=round(time_ms, 4),
                weight_bytes=graph.weight_bytes,
                activation_bytes_per_image=graph.peak_activation_bytes_per_image,
                flops_per_image=float(graph.flops_per_image),
                largest_weight_bytes=graph.largest_weight_bytes,
                output_ratio=round(ratio, 4),
            )
        )
    return NamedChain(name=name, chain=chain, costs=tuple(costs))


def timed(
    application: Application,
    load: Load,
    score: float,
    told: Told = tell_nobody,
    kept: Unfinished = NOTHING,
) -> Application:
    """Return the application with its fragments timed again on this machine.

    The times of pieces keep their proportions, and get the sum of the fragments that they make up.

    Args:
        application: The application to time.
        load: Function that loads a fragment.
        score: Benchmark score of this machine, from `reference_score`.
        told: Function that is told what is being done.
        kept: What an interrupted run has measured, and this one measures.
    """
    weights = sum(fragment.weight_bytes for fragment in application.fragments)
    at_once = len(application.fragments) if weights <= MOST_WEIGHT_BYTES else 1
    largest = max(variant.micro_batch for variant in application.variants)
    most = 2 * largest if largest > 1 else 1  # some networks take one input at a time only
    batches = [batch for batch in BATCHES if batch <= most]
    timings: list[Timing] = []
    while len(timings) < len(application.fragments):
        some = application.fragments[len(timings) : len(timings) + at_once]
        told(f"timing {len(some)} of {len(application.fragments)} fragments")
        about = ([fragment.sha256 for fragment in some], batches)
        most_s = MOST_SECONDS * len(some) / len(application.fragments)
        measure = partial(_timings, some, load, batches, most_s)
        found: Sequence[Timing] = kept.once("times", about, _TIMINGS, measure)
        timings += found
    return with_times(application, timings, score)


def _timings(
    fragments: Sequence[Fragment], load: Load, batches: Sequence[int], most_s: float
) -> Sequence[Timing]:
    return time_runtimes([load(fragment) for fragment in fragments], batches, most_s)


def with_times(application: Application, timings: Sequence[Timing], score: float) -> Application:
    """Return the application with these times of its fragments, in their order. See `timed`."""
    fragments = tuple(
        fragment.model_copy(
            update={"milliseconds_per_call": timing.per_call, "milliseconds_per_image": timing.per_image}
        )
        for fragment, timing in zip(application.fragments, timings, strict=True)
    )
    chains = tuple(_scaled(chain, fragments) for chain in application.chains)
    update = {"fragments": fragments, "chains": chains, "reference_score": round(score, 2)}
    return application.model_copy(update=update)


def _scaled(chain: NamedChain, fragments: Sequence[Fragment]) -> NamedChain:
    """Return a chain whose pieces take as long as the fragments that they make up."""
    runs = [fragment for fragment in fragments if fragment.chain == chain.name]
    pieces_ms = sum(cost.milliseconds_per_image for run in runs for cost in chain.costs[run.first : run.end])
    if not pieces_ms:
        return chain
    factor = sum(run.milliseconds_per_image for run in runs) / pieces_ms
    costs = tuple(
        cost.model_copy(update={"milliseconds_per_image": round(cost.milliseconds_per_image * factor, 4)})
        for cost in chain.costs
    )
    return chain.model_copy(update={"costs": costs})
