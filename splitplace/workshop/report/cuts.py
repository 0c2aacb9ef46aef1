"""Draw the stored chains of an application on the network they were cut from."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import onnx

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment, Variant
from splitplace.workshop.cutting.balance import Target
from splitplace.workshop.cutting.inspection import Inspection, SegmentTimes, inspect
from splitplace.workshop.cutting.plan import CutPlan, PlannedStage
from splitplace.workshop.cutting.profile import segment_times
from splitplace.workshop.packing.evaluation import is_cut_whole
from splitplace.workshop.report.drawing import draw

TARGET = Target()
"""Target that the stored chains are balanced for."""


class DiagramError(SplitPlaceError):
    """A chain was not cut from the stored whole network."""


def cut_diagrams(
    application: Application,
    model: Callable[[Fragment], onnx.ModelProto],
    measure: SegmentTimes = segment_times,
) -> Iterator[tuple[str, str]]:
    """Yield the name and the drawing (SVG) of each chain that was cut from the whole network.

    The segments between all cut points are timed on this machine, which takes some seconds per chain. These
    times give a stage's time and the pace of the best cut. FLOPs, weights and memory come from the manifest.

    Raises:
        DiagramError: A chain does not fit the whole network.
        CutError: The whole network cannot be cut into as many stages.
        GraphError: The graph does not tell a shape or size that is needed.
        StoreError: A fragment is missing.
    """
    chains = [variant for variant in application.variants if is_cut_whole(variant)]
    single = next((variant for variant in application.variants if variant.name == "whole"), None)
    if single is None:
        return
    whole = model(application.fragment(single.stages[0].fragment)) if chains else onnx.ModelProto()
    for variant in chains:
        best = inspect(
            whole,
            name=f"{application.name}, {variant.name}",
            stages=len(variant.stages),
            target=TARGET,
            micro_batch=variant.micro_batch,
            measure=measure,
        )
        fragments = [application.fragment(stage.fragment) for stage in variant.stages]
        tensors = [application.stage_of(fragment).outputs[0].name for fragment in fragments[:-1]]
        yield variant.name, draw(replace(best, plan=_stored_plan(best, application, variant, tensors)))


def _stored_plan(best: Inspection, application: Application, variant: Variant, tensors: list[str]) -> CutPlan:
    """Describe the stored chain as a plan over the inspected segments."""
    places = {point.tensor: index for index, point in enumerate(best.points)}
    if not places.keys() >= set(tensors):
        raise DiagramError(
            f"{application.name}/{variant.name} was not cut from the network in {application.name}/whole"
        )
    ends = [*(places[tensor] for tensor in tensors), len(best.points)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    stages = []
    nodes = TARGET.for_stages(len(variant.stages))
    for stage, node, first, last in zip(variant.stages, nodes, starts, ends, strict=True):
        fragment = application.fragment(stage.fragment)
        sent = best.points[last].sent_bytes_per_image if last < len(best.points) else 0.0
        stages.append(
            PlannedStage(
                first_segment=first,
                last_segment=last,
                compute_ms=sum(part.milliseconds for part in best.segments[first : last + 1]) * node.slowdown,
                send_ms=sent / node.link_bytes_per_ms,
                sent_bytes_per_image=sent,
                flops_per_image=round(fragment.flops_per_image),
                weight_bytes=fragment.weight_bytes,
                peak_memory_bytes=fragment.peak_memory_bytes,
                output=best.points[last].tensor if last < len(best.points) else "",
            )
        )
    pace_ms = max(max(stage.compute_ms, stage.send_ms) for stage in stages)
    return replace(best.plan, stages=tuple(stages), pace_ms=pace_ms)
