import io
from pathlib import Path
from random import Random

import pytest

from splitplace.simulator import vehicles
from splitplace.simulator.mobility import TraceError, trace

HEADER = "second,vehicle,bandwidth_factor,extra_latency_ms\n"


def test_the_bundled_trace_is_what_the_model_writes() -> None:
    made = io.StringIO()
    vehicles.write(made, vehicles.model())
    assert made.getvalue() == Path("splitplace/simulator/traces/vehicles.csv").read_text(encoding="utf-8")


def test_the_bundled_trace_holds_every_vehicle_and_begins_again() -> None:
    bundled = trace()
    assert (bundled.vehicles, bundled.steps, bundled.step_ms) == (16, 240, 30_000)
    assert bundled.at(3, 5) == bundled.at(3, 245)
    factors = [factor for series in bundled.factors for factor in series]
    assert 0 < min(factors) < 0.5 < max(factors) <= 1


def test_links_get_worse_with_distance() -> None:
    near, middle, far = (vehicles.quality(300.0 + metres, 300.0) for metres in (0.0, 100.0, 300.0))
    assert near == (1.0, 0.0)
    assert near[0] > middle[0] > far[0] > 0
    assert near[1] < middle[1] < far[1]


def test_vehicles_stay_on_the_streets() -> None:
    side = vehicles.BLOCKS * vehicles.BLOCK_METRES
    for x, y in vehicles.drive(Random(1), 500, 5.0):
        assert 0 <= x <= side
        assert 0 <= y <= side
        assert min(x % vehicles.BLOCK_METRES, y % vehicles.BLOCK_METRES) == pytest.approx(0, abs=1e-6)


def test_a_trace_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(f"{HEADER}0,bus,1,0\n10,bus,0.5,3\n0,tram,0.2,9\n10,tram,0.1,9\n")
    mine = trace(file)
    assert mine.step_ms == 10_000
    assert [mine.at(0, 1), mine.at(1, 0)] == [(0.5, 3.0), (0.2, 9.0)]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("0,bus,1,0\n10,bus,-1,0\n", "line 3: out of range"),
        ("0,bus,nan,0\n", "line 2: out of range"),
        ("0,bus,one,0\n", "line 2: could not convert"),
        ("0,bus\n", "line 2"),
        ("", "same seconds"),
        ("0,bus,1,0\n", "same seconds"),
        ("0,bus,1,0\n10,bus,1,0\n30,bus,1,0\n", "equal steps"),
        ("0,bus,1,0\n10,bus,1,0\n0,tram,1,0\n", "same seconds"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, rows: str, problem: str) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(HEADER + rows)
    with pytest.raises(TraceError, match=problem):
        trace(file)


def test_a_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: cannot be read"):
        trace(tmp_path / "none.csv")
