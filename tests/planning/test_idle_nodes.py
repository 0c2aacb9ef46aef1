"""What an application takes on idle nodes, computed by hand."""

import pytest

from splitplace.planning.idle_nodes import IdleVariant, nodes_as_idle, on_idle_nodes
from splitplace.planning.kinds import NodesError
from splitplace.policies.cost import HOP_MS
from tests.support.examples import all_of, node, snapshot, three_ways
from tests.support.free_stages import free_application

HOPS_MS = 5 * HOP_MS
"""Decision to placer, placement to gateway, input to node, and two back."""
APPLICATION = three_ways(image_ms=60.0, megabytes=3.0)

LARGEST = "layer: its largest piece needs 0.957 MiB of memory, the largest node (n1)"


def found(*nodes: object, application: object = APPLICATION) -> dict[str, IdleVariant]:
    idle = nodes_as_idle(snapshot(*nodes))  # type: ignore[arg-type]
    return {each.variant: each for each in on_idle_nodes(application, idle)}  # type: ignore[arg-type]


def test_an_idle_node_takes_the_time_of_the_network_whatever_waits_there() -> None:
    whole = found(node("n1", loaded=all_of(APPLICATION), queue_ms=9000.0))["whole"]
    assert whole.predicted_ms == pytest.approx(60.0 + HOPS_MS, abs=0.1)
    assert whole.micro_batch_ms == pytest.approx(4 * 60.0 + HOPS_MS, abs=0.1)
    assert (whole.nodes, whole.first_ms, whole.reason) == (("n1",), None, "")


def test_what_no_node_holds_says_what_it_needs_and_what_there_is() -> None:
    """The whole needs 3 MB, a third of it 1 MB."""
    variants = found(*(node(f"n{index}", megabytes=1.5) for index in range(3)))
    whole, layer = variants["whole"], variants["layer"]
    assert (whole.predicted_ms, whole.stages) == (None, ())
    assert "needs 2.86 MiB of memory, the largest node (n0) has 1.43 MiB" in whole.reason
    assert layer.nodes == ("n0", "n1", "n2")
    assert layer.predicted_ms == pytest.approx(60.0, rel=0.3)


def test_a_network_that_must_be_loaded_takes_longer_now_than_later() -> None:
    whole = found(node("n1", load_ms=700.0))["whole"]
    assert whole.predicted_ms == pytest.approx(60.0 + HOPS_MS, abs=0.1)
    assert whole.first_ms is not None
    assert whole.first_ms > 700.0 + 60.0


def test_pieces_are_grouped_for_the_nodes_that_there_are() -> None:
    """Four pieces of 1 MB and some: two fit a node."""
    application = free_application(4, image_ms=(20.0,) * 4)
    layer = found(node("n1", megabytes=2.5), node("n2", megabytes=2.5), application=application)["layer"]
    assert set(layer.nodes) == {"n1", "n2"}
    assert layer.predicted_ms == pytest.approx(80.0, rel=0.2)


@pytest.mark.parametrize(
    ("megabytes", "why"),
    [
        (0.5, f"{LARGEST} has 0.477 MiB"),
        (
            1.5,
            f"{LARGEST} has 1.43 MiB, but all pieces together need more nodes or more memory",
        ),
    ],
)
def test_pieces_that_fit_in_no_way_say_whether_one_is_too_large(megabytes: float, why: str) -> None:
    """Four pieces of 1 MB: the stages of two that the manifest has would say 2 MB."""
    nodes = [node(name, megabytes=megabytes) for name in ("n1", "n2")]
    layer = found(*nodes, application=free_application(4))["layer"]
    assert layer.predicted_ms is None
    assert layer.reason == why


@pytest.mark.parametrize("nodes", [(), (node("n1", online=False),), (node("n1", speed=0.0),)])
def test_without_nodes_it_is_said_how_to_start_one(nodes: tuple[object, ...]) -> None:
    with pytest.raises(NodesError, match="splitplace node --node NAME"):
        found(*nodes)
