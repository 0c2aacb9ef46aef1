"""The commands of the README, typed as they stand there into empty homes, make a secured system."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.readme_commands import ROOT, typed

pytestmark = [pytest.mark.mosquitto, pytest.mark.system]

OWN_NETWORK = 'ip link set lo up && ip address add 192.0.2.10/24 dev lo && exec "$@"'
"""An address of its own, so that the commands may use the ports that they use by default."""


def test_the_readme_needs_at_most_six_commands() -> None:
    assert [words[:3] for words in typed()] == [
        ["splitplace", "secure", "init"],
        ["splitplace", "broker"],
        ["splitplace", "up"],
        *[["splitplace", "secure", "add"]] * 2,
        ["splitplace", "camera", "~/pictures"],
    ]


def test_the_commands_of_the_readme_make_a_secured_system_with_two_nodes_a_sensor_and_a_camera(
    tmp_path: Path,
) -> None:
    assert shutil.which("unshare")
    assert shutil.which("ip"), "install iproute2"
    isolated = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
    done = subprocess.run(
        [
            *(*isolated, "sh", "-c", OWN_NETWORK, "sh"),
            *(sys.executable, "-m", "tests.support.readme_commands", str(tmp_path)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["sensor"] == ["7"]
    assert found["nodes"] == ["cellar", "kitchen"]
    (line,) = found["camera"]
    assert line.split()[:3] == ["pictures", "digit-7-3.png", "7"]
