"""Nodes of a plan, as people write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.cluster import NodeState
from splitplace.planning.kinds import NodesError, from_states, known_kinds, parse_nodes


def test_counts_and_kinds_are_read() -> None:
    cluster = parse_nodes("2xpi4, 1xpi5")
    assert [(group.name, group.count) for group in cluster.groups] == [("pi4", 2), ("pi5", 1)]
    assert cluster.groups[0].kind == known_kinds()["pi4"]
    assert cluster.named == "2 x pi4, 1 x pi5"


def test_a_kind_of_ones_own_has_commas_between_its_fields() -> None:
    cluster = parse_nodes('pi4,3x"attic:speed=20,memory=2GB,link=80Mbit,cores=4",1xpi5')
    attic = cluster.groups[1]
    assert (attic.name, attic.count) == ("attic", 3)
    assert (attic.kind.speed, attic.kind.memory, attic.kind.link, attic.kind.cores) == (20.0, 2000.0, 10.0, 4)
    assert attic.kind.doubt == 0.0, "a speed that was given is not in doubt"
    assert cluster.count == 5


def test_an_own_kind_takes_from_a_known_one_what_it_does_not_say() -> None:
    (group,) = parse_nodes("1xshed:like=pi4,link=3").groups
    assert (group.kind.speed, group.kind.link) == (known_kinds()["pi4"].speed, 3.0)
    assert group.kind.doubt > 0, "its speed is still assumed"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no nodes are given"),
        ("2xpi9", "no kind of node 'pi9'"),
        ("1xattic:memory=2GB", "speed not given"),
        ("1xattic:speed=quick,memory=2GB", "is no number"),
        ("1xattic:speed=5,memory=2 parsec", "MB, MiB, GB, GiB"),
        ("1xattic:speed=5,memory=2,colour=3", "colour"),
        ("0xpi4", "count"),
        ("pi4,2xpi4", "given twice"),
        ("150xpi4,150xpi5", "more than 200"),
        ("nowhere.toml", "nowhere.toml"),
    ],
)
def test_nodes_that_are_not_understood_are_explained(text: str, why: str) -> None:
    with pytest.raises(NodesError, match=why):
        parse_nodes(text)


def test_nodes_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "nodes.toml"
    file.write_text(
        '[broker]\nlink = 12.0\n[pi4]\ncount = 2\nlink = 6.0\n[cellar]\ncount = 1\nlike = "pi3"\n'
        "[barn]\nspeed = 40.0\nmemory = 900.0\n"
    )
    cluster = parse_nodes(str(file))
    assert [(group.name, group.count) for group in cluster.groups] == [("pi4", 2), ("cellar", 1), ("barn", 1)]
    assert cluster.broker_link == 12.0
    assert cluster.groups[0].kind.link == 6.0
    assert cluster.groups[1].kind.speed == known_kinds()["pi3"].speed


def test_a_running_cluster_gives_its_nodes_as_they_measured_themselves() -> None:
    cluster = from_states(
        [state("kitchen", 30.0), state("front.door", 10.0), state("gone", 5.0, online=False)]
    )
    assert [(group.name, group.kind.speed, group.kind.doubt) for group in cluster.groups] == [
        ("kitchen", 30.0, 0.0),
        ("front-door", 10.0, 0.0),
    ]
    assert cluster.groups[0].kind.link == 2.0, "the slower direction"


def test_a_cluster_without_a_node_that_is_online_says_so() -> None:
    with pytest.raises(NodesError, match="no node"):
        from_states([state("gone", 5.0, online=False)])


def test_a_node_is_added_and_taken_away() -> None:
    cluster = parse_nodes("2xpi4")
    assert cluster.with_one_more("pi4", known_kinds()["pi4"]).named == "3 x pi4"
    assert cluster.with_one_more("pi5", known_kinds()["pi5"]).named == "2 x pi4, 1 x pi5"
    smaller = cluster.without_one("pi4")
    assert smaller is not None
    assert smaller.named == "1 x pi4"
    assert smaller.without_one("pi4") is None
    with pytest.raises(NodesError, match="no node pi5"):
        cluster.without_one("pi5")


def test_the_table_says_of_every_kind_that_its_speed_is_assumed() -> None:
    for name, kind in known_kinds().items():
        assert kind.basis.startswith("assumed"), name
        assert kind.doubt > 0, name
        assert kind.price, name


@given(st.text(max_size=60))
def test_any_text_gives_nodes_or_an_explanation(text: str) -> None:
    try:
        cluster = parse_nodes(text)
    except NodesError:
        return
    assert cluster.count >= 1


def state(node: str, score: float, *, online: bool = True) -> NodeState:
    return NodeState(
        node=node,
        boot="0" * 16,
        online=online,
        silent_ms=0.0,
        score=score,
        memory_budget_bytes=100_000_000,
        loaded=(),
        queue_ms=0.0,
        queue_length=0,
        cpu_ratio=0.0,
        link_megabytes_per_second=5.0,
        up_megabytes_per_second=2.0,
        timings=(),
    )
