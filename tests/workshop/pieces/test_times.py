import time

import onnx

from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.places import piece_places
from splitplace.workshop.pieces.times import segment_milliseconds
from tests.support.branching_networks import unet
from tests.support.small_networks import exported_small_network
from tests.support.small_pieces import small_convolutions


def after_each_relu(model: onnx.ModelProto) -> list[int]:
    found = {place.tensors: place.end for place in piece_places(model)}
    return [found[f"r{index}",] for index in range(7)]


def test_times_of_segments_add_up_to_a_run() -> None:
    model = small_convolutions(8)
    began = time.thread_time()
    times = segment_milliseconds(model, after_each_relu(model), images=16)
    elapsed_ms = 1000 * (time.thread_time() - began)
    assert len(times) == 8
    assert 0 < sum(times) * 16 < elapsed_ms


def test_every_layer_has_its_time_although_layers_are_fused() -> None:
    model = small_convolutions(8)
    times = segment_milliseconds(model, after_each_relu(model), images=64)
    inner = times[1:7]  # alike
    assert min(inner) > 0
    assert max(inner) < 8 * min(inner)


def test_the_time_of_a_fused_kernel_is_that_of_its_layer_not_of_what_follows() -> None:
    model = unet()
    graph = Graph(model)
    times = segment_milliseconds(model, range(1, len(graph.nodes)))
    for node, is_layer, took_ms in zip(graph.nodes, graph.matrices(), times, strict=True):
        assert (took_ms > 0) == (is_layer or node.op_type != "Relu"), f"{node.op_type} {node.output}"


def test_networks_from_torch_can_be_timed() -> None:
    model = exported_small_network()
    ends = [place.end for place in piece_places(model)]
    times = segment_milliseconds(model, ends)
    assert len(times) == len(ends) + 1
    assert sum(times) > 0
