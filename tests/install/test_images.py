"""The container images install from what they copy."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.texts import ROOT as REPOSITORY

DOCKERFILES = sorted((REPOSITORY / "deploy").glob("Dockerfile.*"))


def copied(dockerfile: Path) -> tuple[tuple[str, str], ...]:
    """Source and target of every COPY from the build's context in the stage that installs."""
    stage = dockerfile.read_text(encoding="utf-8").split("FROM ")[1]
    lines = [line.split()[1:] for line in stage.splitlines() if line.startswith("COPY ")]
    return tuple((source, words[-1]) for words in lines for source in words[:-1])


CONTEXTS = {copied(dockerfile): dockerfile.suffix for dockerfile in DOCKERFILES}
"""Images that copy the same need one build."""


@pytest.mark.parametrize("files", CONTEXTS, ids=CONTEXTS.values())
def test_the_files_that_an_image_copies_make_a_whole_wheel(
    files: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, target in files:
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
