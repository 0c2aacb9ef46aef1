"""Draw the stored chains of an application on the network they were cut from."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import onnx

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment, Variant
from splitplace.workshop.cutting.balance import Target
from splitplace.workshop.packing.evaluation import is_cut_whole
from splitplace.workshop.pieces.chain import MeasuredNetwork, SegmentTimes, measured
from splitplace.workshop.pieces.cut import PieceCutError
from splitplace.workshop.pieces.inspection import inspect
from splitplace.workshop.pieces.plan import plan_of
from splitplace.workshop.pieces.times import segment_milliseconds
from splitplace.workshop.report.drawing import draw

TARGET = Target()
"""Target that the stored chains are balanced for."""


class DiagramError(SplitPlaceError):
    """A chain was not cut from the stored whole network."""


def cut_diagrams(
    application: Application,
    model: Callable[[Fragment], onnx.ModelProto],
    measure: SegmentTimes = segment_milliseconds,
) -> Iterator[tuple[str, str]]:
    """Yield the name and the drawing (SVG) of each chain that was cut from the whole network.

    What lies between all places to cut is timed on this machine, which takes some seconds.

    Raises:
        DiagramError: A chain does not fit the whole network.
        GraphError: The graph does not tell a shape or size that is needed.
        StoreError: A fragment is missing.
    """
    chains = [variant for variant in application.variants if is_cut_whole(variant)]
    single = next((variant for variant in application.variants if variant.name == "whole"), None)
    if single is None or not chains:
        return
    network = measured(model(application.fragment(single.stages[0].fragment)), measure)
    for variant in chains:
        cuts = stored_cuts(network, application, variant)
        name, count = f"{application.name}, {variant.name}", len(variant.stages)
        best = inspect(network, name=name, stages=count, target=TARGET, micro_batch=variant.micro_batch)
        plan = plan_of(network, cuts, TARGET, variant.micro_batch, best.plan.least_pace_ms)
        yield variant.name, draw(replace(best, plan=plan))


def stored_cuts(network: MeasuredNetwork, application: Application, variant: Variant) -> tuple[int, ...]:
    """Return the numbers of the places where a stored chain is cut. Raises DiagramError if it has others."""
    stages = [application.stage_of(application.fragment(stage.fragment)) for stage in variant.stages]
    try:
        return tuple(
            network.place_of(tuple(tensor.name for tensor in stage.outputs)) for stage in stages[:-1]
        )
    except PieceCutError as error:
        raise DiagramError(
            f"{application.name}/{variant.name} was not cut from the network in {application.name}/whole"
        ) from error
