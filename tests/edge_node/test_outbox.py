"""The header under which an output travels on."""

from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.executor import Done
from splitplace.edge_node.outbox import shipments
from splitplace.messages.frames import EncodedBundle, Route, SentTensor, TensorHeader, tensor_frames, unpack
from tests.edge_node.jobs import FRAGMENTS, make_job

OUTPUT = EncodedBundle((SentTensor(dtype="float32", shape=(1, 2), codec="raw", encoded_bytes=8),), bytes(8))
ENDS = tuple(Route(stage=name, node=f"node-{name}", fragment=FRAGMENTS[1]) for name in ("left", "right"))


def done(*following: Route) -> Done:
    job = make_job(next_routes=following, arrived_ms=100.0, ends_ms=600.0)
    return Done(job, queue_ms=3.0, compute_ms=4.0, result=OUTPUT)


def test_where_the_route_ends_the_output_goes_to_the_aggregator() -> None:
    (shipment,) = shipments(done(), OUTPUT, "n1", 200.0)
    header = shipment.header
    assert shipment.receiver == "_aggregator"
    assert (header.route, header.stage) == (None, "stage")
    assert (header.dtype, header.shape, header.encoded_bytes) == ("float32", (1, 2), 8)


def test_every_reader_gets_its_own_part_of_the_route() -> None:
    sent = shipments(done(*ENDS), OUTPUT, "n1", 200.0)
    assert [(s.receiver, s.header.stage, s.header.route) for s in sent] == [
        ("node-left", "left", ENDS[0]),
        ("node-right", "right", ENDS[1]),
    ]


def test_time_spent_here_is_taken_off_and_costs_are_added_up() -> None:
    (shipment,) = shipments(done(), OUTPUT, "n1", 250.0)
    header = shipment.header
    assert header.expires_ms == 350.0
    (report,) = header.trace
    assert (report.stage, report.node, report.queue_ms, report.compute_ms) == ("stage", "n1", 3.0, 4.0)
    assert header.moved_bytes == 16


def test_what_nobody_wants_any_more_is_not_sent() -> None:
    assert shipments(done(), OUTPUT, "n1", 600.0) == ()


@given(st.floats(0, 599.9), st.sampled_from([(), ENDS[:1], ENDS]))
def test_every_header_that_is_sent_is_valid_to_its_receiver(
    now_ms: float, following: tuple[Route, ...]
) -> None:
    for shipment in shipments(done(*following), OUTPUT, "n1", now_ms):
        for frame in tensor_frames(shipment.header, OUTPUT.body):
            header, body = unpack(TensorHeader, frame)
            assert header == shipment.header
            assert bytes(body) == OUTPUT.body
