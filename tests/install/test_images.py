"""The container images install from what they copy."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.texts import ROOT as REPOSITORY

DOCKERFILES = sorted((REPOSITORY / "deploy").glob("Dockerfile.*"))


def copied(dockerfile: Path) -> list[tuple[list[str], str]]:
    """Sources and target of every COPY from the build's context in the stage that installs."""
    stage = dockerfile.read_text(encoding="utf-8").split("FROM ")[1]
    lines = [line.split()[1:] for line in stage.splitlines() if line.startswith("COPY ")]
    return [(words[:-1], words[-1]) for words in lines]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix)
def test_the_files_that_an_image_copies_make_a_whole_wheel(dockerfile: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for sources, target in copied(dockerfile):
        for name in sources:
            destination = source / (name if target == "./" else target)
            if (REPOSITORY / name).is_dir():
                shutil.copytree(REPOSITORY / name, destination, symlinks=True)
            else:
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, destination)
    build = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "--outdir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "splitplace/edge_node/agent.py",
        "splitplace/services/gateway/core.py",
        "splitplace/messages/topics.py",
        "splitplace/commands/demo/sensor.py",
        "splitplace/shipped_store/mnist/manifest.json",
    } <= names
