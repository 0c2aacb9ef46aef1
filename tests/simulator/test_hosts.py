from collections import Counter
from pathlib import Path

import pytest

from splitplace.simulator.hosts import PRESETS, HostError, machines
from tests.simulator.worlds import host


def kinds(count: int) -> Counter[str]:
    return Counter(one.kind for _, one in machines("azure50").expand(count))


def test_fifty_hosts_are_those_of_table_3() -> None:
    assert kinds(50) == {"B2ms": 20, "E2asv4": 10, "B4ms": 10, "E4asv4": 10}


def test_other_numbers_keep_the_proportions() -> None:
    assert kinds(1000) == {"B2ms": 400, "E2asv4": 200, "B4ms": 200, "E4asv4": 200}
    assert kinds(1).total() == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_used_and_names_its_hosts_once(preset: str) -> None:
    named = machines(preset).expand(7)
    assert len({name for name, _ in named}) == 7


def test_power_is_linear_between_the_measured_points() -> None:
    two_steps = host(watts=(10.0, 20.0, 22.0))
    assert [two_steps.power_watts(used) for used in (0.0, 0.25, 0.5, 0.75, 1.0)] == [10, 15, 20, 21, 22]


def test_hosts_of_ones_own_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[broker]\nmegabytes_per_second = 10\n[[host]]\nkind = 'nas'\nscore = 5\nmemory_megabytes = 500\n"
        "megabytes_per_second = 10\nwatts = [3, 5]\n"
    )
    ((name, mine),) = machines(str(file)).expand(1)
    assert (name, mine.score, mine.concurrency) == ("nas-1", 5.0, 1.0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [("nonsense", "mine.toml"), ("[broker]\nmegabytes_per_second = 0\n", "greater than 0")],
)
def test_a_file_that_is_no_list_of_hosts_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(HostError, match=problem):
        machines(str(file))


@pytest.mark.parametrize("name", ["pi9", "nowhere.toml"])
def test_hosts_that_are_not_known_are_refused(name: str) -> None:
    with pytest.raises(HostError, match=name):
        machines(name)


def test_there_must_be_a_host() -> None:
    with pytest.raises(HostError, match="0 hosts"):
        machines("pi4").expand(0)
