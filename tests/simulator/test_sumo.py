import re
from pathlib import Path
from random import Random

import pytest

from splitplace.simulator import sumo
from splitplace.simulator.vehicles import VEHICLES


def test_vehicles_drive_along_streets_of_the_city() -> None:
    text = sumo.trips(Random(0))
    assert text.count("<trip ") == VEHICLES
    for here, row, there, next_row in re.findall(r"\b([A-K])(\d+)([A-K])(\d+)\b", text):
        assert abs(ord(here) - ord(there)) + abs(int(row) - int(next_row)) == 1
        assert int(row) <= 10


def test_a_vehicle_that_is_not_there_stays_where_it_was_last(tmp_path: Path) -> None:
    seen = tmp_path / "seen.xml"
    everybody = "".join(f'<vehicle id="{n}" x="5" y="{n}"/>' for n in range(1, VEHICLES))
    seen.write_text(
        f'<fcd-export><timestep time="0">{everybody}</timestep>'
        f'<timestep time="30"><vehicle id="0" x="1" y="2"/>{everybody}</timestep>'
        f'<timestep time="60">{everybody}</timestep></fcd-export>'
    )
    places = list(sumo.positions(seen))
    assert places[:3] == [(0.0, "0", 1.0, 2.0), (30.0, "0", 1.0, 2.0), (60.0, "0", 1.0, 2.0)]
    assert places[3] == (0.0, "1", 5.0, 1.0)
    assert len(places) == 3 * VEHICLES


def test_a_vehicle_that_never_drove_is_an_error(tmp_path: Path) -> None:
    seen = tmp_path / "seen.xml"
    seen.write_text('<fcd-export><timestep time="0"/></fcd-export>')
    with pytest.raises(sumo.SumoError, match="vehicle 0 never drove"):
        list(sumo.positions(seen))


def test_without_sumo_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sumo", None)
    with pytest.raises(sumo.SumoError, match=r"'splitplace\[sumo\]'"):
        sumo.binaries()
