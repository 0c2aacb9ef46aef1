"""A CPU share is a fact that the kernel enforces, where it lets us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.commands.processes.cpu_shares import Hierarchy, cpu_shares, find_hierarchy, quota

MEASURE = """
import time
end = time.monotonic() + 1.5
while time.monotonic() < end:
    pass
print(time.process_time() / 1.5)
"""


def share_used(limit_to: float | None) -> float:
    """Share of a core that a busy process gets."""
    with cpu_shares() as shares:
        process = subprocess.Popen([sys.executable, "-c", MEASURE], stdout=subprocess.PIPE, text=True)
        if limit_to is not None:
            shares.limit("busy", process.pid, limit_to)
        output, _ = process.communicate(timeout=30)
    return float(output)


@pytest.mark.serial
def test_a_share_is_kept_where_the_kernel_lets_us_and_else_left_to_the_node() -> None:
    with cpu_shares() as shares:
        mechanism = shares.mechanism
    used = share_used(0.1)
    if mechanism == "pacing":
        assert used > 0.15  # not limited from outside
    else:
        assert 0.05 < used < 0.15


def test_nothing_of_ours_is_left_in_the_kernel() -> None:
    share_used(0.5)
    place = find_hierarchy()
    left = [] if place is None else list(place.folder.glob(f"splitplace-{os.getpid()}*"))
    assert left == []


@given(st.floats(0.001, 64))
def test_quotas_are_what_the_kernel_accepts_and_mean_the_share(share: float) -> None:
    allowed, period = quota(share)
    assert 1_000 <= period <= 1_000_000
    assert allowed >= 1_000
    assert allowed / period == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize("share", [0.0, -0.1, float("nan")])
def test_a_share_must_be_positive(share: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        quota(share)


def _made_up(folder: Path) -> Hierarchy:
    """A folder in place of the kernel's: shows what we would write on a machine with cgroup v2."""
    return Hierarchy("cgroup v2", folder)


def test_cgroup_v2_gets_the_quota_and_the_process(tmp_path: Path) -> None:
    with cpu_shares(_made_up(tmp_path)) as shares:
        assert shares.mechanism == "cgroup v2"
        shares.limit("node-1", 4711, 0.08)
        group = tmp_path / f"splitplace-{os.getpid()}"
        assert (group / "cgroup.subtree_control").read_text() == "+cpu"
        assert (group / "node-1" / "cpu.max").read_text() == "1000 12500"
        assert (group / "node-1" / "cgroup.procs").read_text() == "4711"
        shares.prefer()
        assert (group / "cpu.weight").read_text() == "10000"


def test_leftovers_of_crashed_runs_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"splitplace-{dead.pid}", f"splitplace-{os.getppid()}", "system.slice"):
        (tmp_path / name / "node-1").mkdir(parents=True)
    with cpu_shares(_made_up(tmp_path)):
        pass
    assert not (tmp_path / f"splitplace-{dead.pid}").exists()
    assert (tmp_path / f"splitplace-{os.getppid()}" / "node-1").exists()
    assert (tmp_path / "system.slice" / "node-1").exists()


def test_where_groups_cannot_be_made_the_node_paces_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with cpu_shares(_made_up(tmp_path / "file")) as shares:
        assert shares.mechanism == "pacing"
        shares.limit("node-1", 4711, 0.08)
