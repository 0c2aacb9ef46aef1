"""What a node says of its machine."""

import time
from pathlib import Path

import pytest

from splitplace.edge_node.vitals import Meter, power_watts, read_temperature, read_throttled
from tests.support.waiting import pass_time


def test_power_follows_the_published_curve_and_is_linear_in_between() -> None:
    assert power_watts(0.0) == pytest.approx(0.45)
    assert power_watts(0.4) == pytest.approx(1.65)
    assert power_watts(0.35) == pytest.approx((1.03 + 1.65) / 2)
    assert power_watts(1.0) == pytest.approx(1.75)


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_process_that_computes_uses_its_share_and_more_energy_than_an_idle_one() -> None:
    meter = Meter(capacity=0.1)
    burn(0.2)
    busy = meter.sample()
    pass_time(0.2)
    idle = meter.sample()
    assert idle.cpu_ratio < busy.cpu_ratio <= 1.0, "below 1 beside other work"
    assert 0 < idle.energy_joules - busy.energy_joules < 1.75 * 0.4
    assert idle.resident_bytes > 10_000_000


def test_half_of_a_share_is_half_of_the_ratio() -> None:
    meter = Meter(capacity=100.0)
    burn(0.1)
    assert 0 < meter.sample().cpu_ratio < 0.011


@pytest.mark.parametrize(
    ("content", "expected"),
    [("0", False), ("50000", False), ("50005", True), ("e0008", True), ("1", False), ("", None), ("x", None)],
)
def test_only_throttling_of_this_moment_counts(tmp_path: Path, content: str, expected: bool | None) -> None:  # noqa: FBT001
    file = tmp_path / "get_throttled"
    file.write_text(content)
    assert read_throttled(file) is expected


def test_a_machine_without_that_file_says_nothing_of_throttling(tmp_path: Path) -> None:
    assert read_throttled(tmp_path / "missing") is None


def test_a_temperature_is_plausible_where_there_is_one() -> None:
    temperature = read_temperature()
    assert temperature is None or -100 <= temperature <= 300
