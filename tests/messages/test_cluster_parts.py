"""Whatever is lost, comes late or starts anew: readers end with the state that the monitor has."""

from collections.abc import Iterable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import ClusterMembers, ClusterState, FragmentLoad, NodeState
from splitplace.messages.cluster_parts import TOLD_AGAIN_MS, ClusterAssembly, ClusterTeller, Telling
from splitplace.messages.topics import CLUSTER_MEMBERS, CLUSTER_NODE
from tests.support.examples import node, snapshot

IDLE_MS = 5000.0
LOADING = (FragmentLoad(fragment="a" * 64, left_ms=3.0),)
Part = NodeState | ClusterMembers


def state_of(*nodes: NodeState, sequence: int = 1) -> ClusterState:
    return ClusterState(sequence=sequence, nodes=tuple(sorted(nodes, key=lambda each: each.node)))


def parts(telling: Telling | None) -> list[Part]:
    """The messages of a moment, in their order."""
    return [] if telling is None else [*telling.nodes, telling.members]


def put_together(assembly: ClusterAssembly, messages: Iterable[Part]) -> ClusterState | None:
    """The last state that comes of some messages."""
    states = [assembly.take(message) for message in messages]
    return next((state for state in reversed(states) if state is not None), None)


NODES = st.builds(
    lambda name, speed, queue_ms, online, loads: node(
        name, speed=speed, queue_ms=queue_ms if online else 0.0, online=online
    ).model_copy(update={"loads": loads if online else ()}),
    name=st.sampled_from(["n1", "n2", "n3", "n4"]),
    speed=st.sampled_from([1.0, 2.0]),
    queue_ms=st.sampled_from([0.0, 0.0, 7.0]),
    online=st.booleans(),
    loads=st.sampled_from([(), LOADING]),
)
CLUSTERS = st.lists(NODES, max_size=4, unique_by=lambda each: each.node)


@given(nodes=CLUSTERS, order=st.randoms())
def test_who_comes_late_has_the_whole_state_in_whatever_order_it_comes(
    nodes: list[NodeState], order: Random
) -> None:
    whole = state_of(*nodes)
    messages = parts(ClusterTeller(idle_ms=IDLE_MS).tell(whole, 0.0))
    order.shuffle(messages)
    assert put_together(ClusterAssembly(), messages) == whole


@given(
    moments=st.lists(st.tuples(CLUSTERS, st.booleans(), st.booleans(), st.randoms()), max_size=12),
    last=CLUSTERS,
)
def test_a_reader_that_misses_messages_has_the_state_again_once_all_was_told_again(
    moments: list[tuple[list[NodeState], bool, bool, Random]], last: list[NodeState]
) -> None:
    teller, reader, retained = ClusterTeller(idle_ms=IDLE_MS), ClusterAssembly(), dict[str, Part]()
    sequence, now_ms = 0, 0.0
    heard: ClusterState | None = None

    def tell(nodes: list[NodeState], lost: Random | None = None) -> None:
        nonlocal sequence, now_ms, heard
        sequence, now_ms = sequence + 1, now_ms + 500.0
        telling = teller.tell(state_of(*nodes, sequence=sequence), now_ms)
        for name in telling.gone if telling else ():
            retained.pop(CLUSTER_NODE.at(node=name), None)
        for message in parts(telling):
            name = CLUSTER_NODE.name_of(message) if isinstance(message, NodeState) else CLUSTER_MEMBERS.at()
            retained[name] = message
            if lost is None or lost.random() < 0.5:
                heard = reader.take(message) or heard

    for nodes, monitor_restarts, reader_restarts, chance in moments:
        if monitor_restarts:
            teller, sequence = ClusterTeller(idle_ms=IDLE_MS), 0
        if reader_restarts:
            reader = ClusterAssembly()
            kept = list(retained.values())
            chance.shuffle(kept)
            heard = put_together(reader, kept)
        tell(nodes, chance)
    for _ in range(int(2 * TOLD_AGAIN_MS / 500.0)):
        tell(last)
    assert heard is not None
    assert heard.nodes == state_of(*last).nodes
    late = ClusterAssembly()
    assert put_together(late, retained.values()) == heard, "and who starts now has the same, by the same name"


@given(nodes=CLUSTERS)
def test_messages_hold_what_they_held_when_they_were_written(nodes: list[NodeState]) -> None:
    for message in parts(ClusterTeller(idle_ms=IDLE_MS).tell(state_of(*nodes), 0.0)):
        assert type(message).model_validate_json(message.model_dump_json()) == message


def test_only_nodes_that_changed_are_told_and_how_busy_they_are_is_no_change() -> None:
    teller = ClusterTeller(idle_ms=IDLE_MS)
    assert len(parts(teller.tell(snapshot(node("n1"), node("n2")), 0.0))) == 3
    busy = parts(teller.tell(snapshot(node("n1", queue_ms=5.0), node("n2")), 500.0))
    assert [type(each) for each in busy] == [ClusterMembers]
    faster = parts(teller.tell(snapshot(node("n1", queue_ms=5.0), node("n2", speed=2.0)), 1000.0))
    assert [getattr(each, "node", None) for each in faster] == ["n2", None]


def test_an_idle_cluster_says_nothing_but_its_names_now_and_then() -> None:
    teller = ClusterTeller(idle_ms=IDLE_MS)
    teller.tell(snapshot(node("n1")), 0.0)
    told = [parts(teller.tell(snapshot(node("n1")), 500.0 * moment)) for moment in range(1, 31)]
    assert [len(each) for each in told if each] == [1, 1, 1]


def test_the_end_of_work_is_told_at_once() -> None:
    teller = ClusterTeller(idle_ms=IDLE_MS)
    teller.tell(snapshot(node("n1", queue_ms=5.0)), 0.0)
    telling = teller.tell(snapshot(node("n1")), 500.0)
    assert telling is not None
    assert telling.members.busy == ()


def test_an_offline_node_is_not_busy() -> None:
    telling = ClusterTeller(idle_ms=IDLE_MS).tell(snapshot(node("n1", queue_ms=5.0, online=False)), 0.0)
    assert telling is not None
    assert telling.members.busy == ()
    assert telling.nodes[0].queue_ms == 0.0


def test_who_is_not_named_any_more_is_gone_and_nothing_of_it_stays_with_the_broker() -> None:
    teller, reader = ClusterTeller(idle_ms=IDLE_MS), ClusterAssembly()
    put_together(reader, parts(teller.tell(snapshot(node("n1"), node("n2")), 0.0)))
    telling = teller.tell(snapshot(node("n2")), 20.0)
    assert telling is not None
    assert telling.gone == ("n1",)
    assert put_together(reader, [telling.members]) == snapshot(node("n2"))


def test_the_first_state_waits_for_its_nodes_until_the_next_moment_and_later_ones_wait_for_nobody() -> None:
    reader = ClusterAssembly()
    members = ClusterMembers(sequence=1, nodes=("n1", "n2"), busy=())
    assert reader.take(node("n1")) is None
    assert reader.take(members) is None, "n2 is missing"
    later = members.model_copy(update={"sequence": 2})
    assert reader.take(later) == ClusterState(sequence=2, nodes=(node("n1"),))
    assert reader.take(node("n2")) == ClusterState(sequence=2, nodes=(node("n1"), node("n2")))


def test_what_is_known_of_the_brokers_link_is_told_with_the_members() -> None:
    teller, reader = ClusterTeller(idle_ms=IDLE_MS), ClusterAssembly()
    for broker in (12.0, 6.0):
        state = snapshot(node("n1")).model_copy(update={"broker_megabytes_per_second": broker})
        assert put_together(reader, parts(teller.tell(state, 0.0))) == state


def test_nodes_are_told_again_a_few_at_a_time() -> None:
    teller = ClusterTeller(idle_ms=IDLE_MS)
    whole = snapshot(*(node(f"n{number:02}") for number in range(50)))
    teller.tell(whole, 0.0)
    told = [teller.tell(whole, TOLD_AGAIN_MS + moment * 500.0) for moment in range(100)]
    counts = [len(telling.nodes) for telling in told if telling is not None and telling.nodes]
    assert sum(counts) == 50
    assert max(counts) == 5
