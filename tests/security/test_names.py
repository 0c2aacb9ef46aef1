"""A name is one level of a topic, and nobody's rights but its own."""

import pytest

from splitplace.messages.topics import DASHBOARD, NODE, SENSOR, SERVICES
from splitplace.security.names import (
    UserNameError,
    check_name,
    name_of,
    newcomer_login,
    next_login,
    role_name,
    role_parts,
)


@pytest.mark.parametrize("name", ["camera", "AA:BB:CC", "front door", "küche", "a.b", "..", "x" * 128])
def test_a_sensor_may_be_called_anything_that_is_one_level_of_a_topic(name: str) -> None:
    assert check_name(SENSOR, name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "+",
        "#",
        "a/b",
        "a+",
        "x#",
        "$SYS",
        "$share",
        "_gateway",
        "a\nb",
        "a\0b",
        "x" * 129,
        "join:kitchen",
        "a~2",
    ],
)
def test_a_name_that_would_mean_other_topics_is_refused(name: str) -> None:
    with pytest.raises(UserNameError):
        check_name(SENSOR, name)


@pytest.mark.parametrize("name", [*SERVICES, "operator", "enroller", "anonymous"])
@pytest.mark.parametrize("kind", [NODE, SENSOR, DASHBOARD])
def test_nobody_is_called_like_a_part_of_the_system(kind: str, name: str) -> None:
    with pytest.raises(UserNameError, match="taken by SplitPlace itself"):
        check_name(kind, name)


@pytest.mark.parametrize("name", ["AA:BB:CC", "front door", "a/b", "_aggregator", "-x", "x" * 65])
def test_a_node_is_called_as_nodes_may_be(name: str) -> None:
    with pytest.raises(UserNameError):
        check_name(NODE, name)


def test_a_second_login_belongs_to_the_same_name() -> None:
    second = next_login("camera", frozenset({"camera"}))
    third = next_login("camera", frozenset({"camera", second}))
    assert [next_login("camera", frozenset()), second, third] == ["camera", "camera~2", "camera~3"]
    assert {name_of(each) for each in ("camera", second, third)} == {"camera"}


def test_a_role_tells_kind_and_name() -> None:
    assert role_parts(role_name(SENSOR, "front door")) == (SENSOR, "front door")
    assert role_parts("admin") is None
    assert newcomer_login("kitchen") == "join:kitchen"
