"""Keep the runs of an unfinished page, so that an interrupted command goes on where it was."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import splitplace
from splitplace.experiments.figures import Run
from splitplace.experiments.running import SimulationRequest, TrainedPolicies, TrainingRun
from splitplace.simulator import Learnt

FOLDER = ".runs"
"""Folder beside the pages."""

_ROOMS = ("messages", "policies", "services", "simulator", "storage")
"""Rooms of the package on which figures depend. What a page shows of them does not matter."""

_SUFFIXES = frozenset({".py", ".toml", ".json", ".csv"})


@dataclass(frozen=True)
class UnfinishedRuns:
    """Finished trainings and simulations of a command that has not ended, each in a file of its own.

    Files are found again only by the same source code, package versions and model stores.

    Args:
        folder: folder of the pages.
        source: fingerprint of the source code.
    """

    folder: Path
    source: str

    def training(self, training: TrainingRun) -> TrainedPolicies | None:
        """Return the result of a training; None if it was not kept."""
        kept = self._read(self._path(training, training.key))
        return kept and TrainedPolicies(Learnt(**kept["learnt"]), kept["series"])

    def keep_training(self, training: TrainingRun, trained: TrainedPolicies) -> None:
        """Keep the result of a training."""
        self._write(self._path(training, training.key), asdict(trained))

    def simulation(self, request: SimulationRequest) -> Run | None:
        """Return the result of a simulation; None if it was not kept."""
        kept = self._read(self._path(request, request.key))
        return kept and Run(**kept)

    def keep_simulation(self, request: SimulationRequest, run: Run) -> None:
        """Keep the result of a simulation."""
        self._write(self._path(request, request.key), asdict(run))

    def forget(self) -> None:
        """Remove everything, once all pages are written."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)

    def _path(self, asked: TrainingRun | SimulationRequest, key: str) -> Path:
        scenario = asked.scenario
        stores = fingerprint(scenario.stores, {".json"}) if scenario.profile == "store" else ""
        name = hashlib.sha256(f"{type(asked).__name__} {self.source} {stores} {key}".encode()).hexdigest()
        return self.folder / FOLDER / f"{name}.json"

    @staticmethod
    def _read(path: Path) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not kept, or cut off
            return None

    @staticmethod
    def _write(path: Path, value: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(value), encoding="utf-8")
        beside.replace(path)


def unfinished_runs(folder: Path) -> UnfinishedRuns:
    """Return what an earlier command with the same source code has left in a folder of pages."""
    package = Path(splitplace.__file__).parent
    source = fingerprint([package / room for room in _ROOMS], _SUFFIXES)
    return UnfinishedRuns(folder, f"{source} {version('numpy')}")


def fingerprint(folders: Iterable[Path], suffixes: Iterable[str]) -> str:
    """Return a hash of all files with some suffixes, by path and content."""
    wanted = frozenset(suffixes)
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.resolve().rglob("*")):
            if path.suffix in wanted and path.is_file():
                digest.update(f"{path.relative_to(folder.resolve())}".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
