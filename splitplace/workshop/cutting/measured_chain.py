"""The chain of a network, balanced by the measured times of its segments."""

import onnx

from splitplace.workshop.cutting.balance import Target
from splitplace.workshop.cutting.layer_split import balanced_chain, cut, cut_points
from splitplace.workshop.cutting.profile import segment_times


def measured_chain(whole: onnx.ModelProto, stages: int, micro_batch: int) -> tuple[onnx.ModelProto, ...]:
    """Cuts a network into so many fragments, so that the slowest is as fast as can be.

    Raises:
        CutError: It has too few places where a single tensor crosses.
    """
    points = cut_points(whole)
    segment_ms = segment_times(cut(whole, [point.tensor for point in points]), micro_batch)
    return balanced_chain(whole, points, segment_ms, stages, Target())
