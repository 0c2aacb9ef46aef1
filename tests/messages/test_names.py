"""Names of sensors and tasks: what MQTT allows in a level, and keys that never meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from splitplace.messages.names import (
    MAX_NAME_BYTES,
    SensorName,
    TaskKey,
    readable,
    sensor_key,
    task_key,
)

NAME = TypeAdapter(SensorName)
KEY = TypeAdapter(TaskKey)
INCARNATION = "0123abcd"

ODD = [
    "AA:BB:CC",
    "front door",
    "küche",
    "cam.front",
    "2026-11-28T11:12:13Z",
    "-1",
    "$x",
    "~",
    "厨房",
    "👩‍🍳",
    "a" * 128,
]

level = st.text(
    st.characters(codec="utf-8", exclude_characters="+#/", exclude_categories=("Cc", "Cs", "Cn")), min_size=1
)
sensor_name = level.filter(lambda name: len(name.encode()) <= MAX_NAME_BYTES)


@pytest.mark.parametrize("name", ODD)
def test_what_mqtt_allows_in_a_level_is_a_name(name: str) -> None:
    assert NAME.validate_python(name) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "a+b", "#", "a\n", "a\0", "\x9b", "\ufdd0", "\ufffe", "a" * 129, "ü" * 65]
)
def test_what_cannot_be_a_level_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


@given(sensor_name, sensor_name)
def test_every_pair_of_names_has_a_key_that_is_one_plain_level(client: str, task: str) -> None:
    key = task_key(client, task, INCARNATION)
    assert KEY.validate_python(key) == key
    assert key.isascii()


@given(sensor_name, sensor_name, sensor_name, sensor_name)
def test_different_names_have_different_keys(
    client: str, task: str, other_client: str, other_task: str
) -> None:
    same = (client, task) == (other_client, other_task)
    keys = task_key(client, task, INCARNATION), task_key(other_client, other_task, INCARNATION)
    assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "a~20b"), ("a" * 128, "a" * 127), ("a.b", "a~2Eb"), ("ü", "~C3~BC")]
)
def test_a_name_that_looks_like_the_key_of_another_has_a_key_of_its_own(one: str, other: str) -> None:
    assert task_key(one, "1", INCARNATION) != task_key(other, "1", INCARNATION)


def test_plain_names_stand_in_their_key() -> None:
    assert task_key("camera-1", "t_7", INCARNATION) == f"camera-1.t_7.{INCARNATION}"
    assert sensor_key(f"camera-1.t_7.{INCARNATION}") == "camera-1.t_7"


@pytest.mark.parametrize("name", [name for name in ODD if len(name) < 20 and name.isprintable()])
def test_people_read_the_names_that_sensors_gave(name: str) -> None:
    assert readable(task_key(name, "1", INCARNATION)) == f"{name}.1.{INCARNATION}"


def test_what_would_disturb_a_terminal_stays_escaped() -> None:
    key = task_key("a\u202eb", "1", INCARNATION)
    assert readable(key) == key
    assert readable("~1B~5B.1") == "~1B~5B.1"
    assert readable("~FF.1") == "~FF.1"


@pytest.mark.parametrize(
    "key",
    [
        "camera",
        "a.b.c",
        f"a.b.{INCARNATION}.{INCARNATION}",
        "a.b.0123ABCD",
        ".a",
        "a.",
        "a/b.c",
        "a.b\n",
        "ü.a",
        f"{'a' * 65}.b",
    ],
)
def test_other_texts_are_no_keys(key: str) -> None:
    with pytest.raises(ValidationError):
        KEY.validate_python(key)
