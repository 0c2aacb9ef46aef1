import time

from splitplace.workshop.pieces.cut import piece_places
from splitplace.workshop.pieces.times import segment_milliseconds
from tests.support.small_networks import exported_small_network
from tests.support.small_pieces import small_convolutions


def test_times_of_segments_add_up_to_a_run() -> None:
    model = small_convolutions(8)
    began = time.thread_time()
    times = segment_milliseconds(model, [f"r{index}" for index in range(7)], images=16)
    elapsed_ms = 1000 * (time.thread_time() - began)
    assert len(times) == 8
    assert 0 < sum(times) * 16 < elapsed_ms


def test_every_layer_has_its_time_although_layers_are_fused() -> None:
    times = segment_milliseconds(small_convolutions(8), [f"r{index}" for index in range(7)], images=64)
    inner = times[1:7]  # alike
    assert min(inner) > 0
    assert max(inner) < 8 * min(inner)


def test_networks_from_torch_can_be_timed() -> None:
    model = exported_small_network()
    tensors = [point.tensor for point in piece_places(model)]
    times = segment_milliseconds(model, tensors)
    assert len(times) == len(tensors) + 1
    assert sum(times) > 0
