"""How many cores a node computes on: affinity, CPU quotas, what else runs on the device."""

import math
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from splitplace.edge_node.cores import quota_cores, usable_cores
from splitplace.edge_node.settings import NodeSettings

V1 = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


def system(root: Path, groups: str, mounts: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mounts").write_text(f"proc /proc proc rw 0 0\n{mounts}")
    return root


def v1(folder: Path, quota: int, period: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text(f"{period}\n")


def v2(folder: Path, content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(content)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_cores")
def test_the_tightest_quota_around_the_process_counts(tmp_path: Path) -> None:
    root = system(tmp_path / "2", "0::/outer/inner\n", V2)
    v2(root / "sys/fs/cgroup/outer", "250000 100000\n")
    v2(root / "sys/fs/cgroup/outer/inner", "max 100000\n")
    assert (quota_cores(root), usable_cores(root)) == (2.5, 3)
    v2(root / "sys/fs/cgroup/outer/inner", "50000 100000\n")
    assert (quota_cores(root), usable_cores(root)) == (0.5, 1)

    root = system(tmp_path / "1", "4:memory:/m\n3:cpu,cpuacct:/outer/inner\n0::/\n", V1)
    v1(root / "sys/fs/cgroup/cpu,cpuacct/outer", 400_000, 200_000)
    v1(root / "sys/fs/cgroup/cpu,cpuacct/outer/inner", -1, 100_000)
    assert (quota_cores(root), usable_cores(root)) == (2.0, 2)


@pytest.mark.usefixtures("eight_cores")
def test_in_a_container_the_mount_is_the_own_group(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/docker/0123456789\n", V2)
    v2(root / "sys/fs/cgroup", "150000 100000\n")
    assert usable_cores(root) == 2


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("content", ["max 100000", "", "x y", "0 100000", "-1 100000", "5 0"])
def test_without_a_quota_that_makes_sense_affinity_decides(tmp_path: Path, content: str) -> None:
    root = system(tmp_path / "own", "0::/\n", V2)
    v2(root / "sys/fs/cgroup", content)
    for place in (root, tmp_path / "nothing"):
        assert (quota_cores(place), usable_cores(place)) == (None, 8)


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        ({"broker": "mqtt://192.168.1.10"}, 4),
        ({"broker": "mqtt://127.0.0.1"}, 3),
        ({"broker": "mqtt://192.168.1.10", "cores": 2}, 2),
        ({"broker": "mqtt://localhost", "cores": 1}, 1),
        ({"broker": "mqtt://192.168.1.10", "cpu_share": 0.3}, 1),
        ({"broker": "mqtt://192.168.1.10", "cpu_share": 2.5}, 3),
        ({"broker": "mqtt://127.0.0.1", "threads": 4}, 4),
        ({"broker": "mqtt://192.168.1.10", "cpu_share": 0.5, "pacing": True}, 1),
    ],
)
def test_a_node_leaves_a_core_to_the_services_beside_it(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], threads: int
) -> None:
    monkeypatch.setattr("splitplace.edge_node.settings.usable_cores", lambda: 4)
    assert NodeSettings.model_validate({"cores": 4} | settings).usable_threads == threads


def test_a_paced_node_has_one_thread() -> None:
    with pytest.raises(ValidationError, match="pacing and threads"):
        NodeSettings(cpu_share=0.5, pacing=True, threads=2)


def test_a_nodes_share_is_the_least_of_what_it_was_told_and_its_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for quota, told, share in [(None, None, math.inf), (0.5, None, 0.5), (2.0, 0.3, 0.3), (None, 0.3, 0.3)]:
        monkeypatch.setattr("splitplace.edge_node.settings.quota_cores", lambda quota=quota: quota)
        assert NodeSettings(cpu_share=told).share == share
