"""The default memory budget: what control groups and the device leave, less what the process itself needs."""

from pathlib import Path

import pytest

from splitplace.edge_node.available_memory import (
    CHILD_BYTES,
    LEAST_BUDGET_BYTES,
    PROCESS_BYTES,
    available_bytes,
    shares,
)
from splitplace.edge_node.settings import NodeSettings
from splitplace.messages.limits import MEBIBYTE

OWN_MIB = 50
NO_LIMIT = "9223372036854771712\n"


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def system(root: Path, *, groups: str, mounts: str, available_mib: int | None = 4096) -> None:
    """A device on which this process holds `OWN_MIB`."""
    write(
        root,
        proc__self__status=f"Name:\tpython\nRssAnon:\t{OWN_MIB * 1024} kB\n",
        proc__self__cgroup=groups,
        proc__self__mounts=mounts,
    )
    if available_mib is not None:
        write(root, proc__meminfo=f"MemTotal: 9999999 kB\nMemAvailable: {available_mib * 1024} kB\n")


def group(folder: Path, limit: str, held_mib: int, *, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text(limit)
    key = "anon" if version == 2 else "total_rss"
    (folder / "memory.stat").write_text(f"cache 5\n{key} {held_mib * MEBIBYTE}\nfile 123\n")


V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n"
V1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_limits_what_there_is_beside_what_others_hold_in_it(
    tmp_path: Path, version: int
) -> None:
    groups, mounts = ("0::/a/b\n", V2) if version == 2 else ("4:memory:/a/b\n1:cpu:/x\n", V1)
    system(tmp_path, groups=groups, mounts=mounts)
    top = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    group(top, "max\n" if version == 2 else NO_LIMIT, 2000, version=version)
    group(top / "a", f"{400 * MEBIBYTE}\n", OWN_MIB + 130, version=version)
    group(top / "a/b", f"{300 * MEBIBYTE}\n", OWN_MIB, version=version)
    assert available_bytes(tmp_path) == 270 * MEBIBYTE  # the outer group has less left than the inner one


def test_in_a_container_the_mounted_group_is_ours(tmp_path: Path) -> None:
    system(tmp_path, groups="0::/system.slice/docker-123.scope\n", mounts=V2)
    group(tmp_path / "sys/fs/cgroup", f"{256 * MEBIBYTE}\n", OWN_MIB, version=2)
    assert available_bytes(tmp_path) == 256 * MEBIBYTE


@pytest.mark.parametrize(("groups", "mounts"), [("0::/\n", V2), ("4:memory:/\n", V1), ("", "")])
def test_without_a_limit_the_device_counts_with_what_this_process_holds(
    tmp_path: Path, groups: str, mounts: str
) -> None:
    system(tmp_path, groups=groups, mounts=mounts)
    group(tmp_path / "sys/fs/cgroup", "max", 100, version=2)
    group(tmp_path / "sys/fs/cgroup/memory", NO_LIMIT, 100, version=1)
    assert available_bytes(tmp_path) == (4096 + OWN_MIB) * MEBIBYTE


def test_a_limit_beyond_what_the_device_has_does_not_count(tmp_path: Path) -> None:
    system(tmp_path, groups="0::/\n", mounts=V2, available_mib=100)
    group(tmp_path / "sys/fs/cgroup", f"{2000 * MEBIBYTE}\n", OWN_MIB, version=2)
    assert available_bytes(tmp_path) == (100 + OWN_MIB) * MEBIBYTE


def test_a_system_that_tells_nothing_gives_nothing(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


@pytest.mark.parametrize("available_mib", [256, 512, 1024, 8192])
def test_all_that_a_node_may_hold_fits_into_what_is_available(available_mib: int) -> None:
    shared = shares(available_mib * MEBIBYTE)
    taken = PROCESS_BYTES + CHILD_BYTES + shared.budget_bytes + 2 * shared.queue_bytes
    assert 0.5 * available_mib * MEBIBYTE < taken <= 0.97 * available_mib * MEBIBYTE


def test_a_device_with_nothing_to_spare_still_runs_small_networks() -> None:
    assert shares(0).budget_bytes == LEAST_BUDGET_BYTES


def test_a_node_without_settings_takes_its_share_of_what_there_is() -> None:
    here = available_bytes()
    assert here is not None
    settings = NodeSettings(node="n1")
    assert settings.memory_budget_bytes + 2 * settings.queue_mb * MEBIBYTE < here
    assert settings.memory_budget_bytes >= LEAST_BUDGET_BYTES
