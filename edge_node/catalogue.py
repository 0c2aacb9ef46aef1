"""Descriptions of fragments from the manifests, and the times that follow from them here. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import nan

from splitplace.edge_node.runs import Runs
from splitplace.edge_node.timings import Line
from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment
from splitplace.messages.pieces import ChainStage, PieceRun, StoredFile
from splitplace.policies import cost

MAX_APPLICATIONS = 256


@dataclass(frozen=True, slots=True)
class Described:
    """A fragment, and what its application says of it."""

    fragment: Fragment
    files: tuple[StoredFile, ...]
    """Everything that must be on the disk to load it."""
    stage: ChainStage
    """The pieces to join."""
    reference_score: float
    """Benchmark score of the device on which it was timed."""
    micro_batch: int
    """Images of the largest micro-batch of a variant that uses it; 1 if none does."""


class CatalogueFullError(SplitPlaceError):
    """More applications than a node keeps."""


class Catalogue:
    """Fragments by hash, from the retained manifests."""

    def __init__(self, score: float) -> None:
        """An empty catalogue of a node with this benchmark score (GFLOP/s)."""
        self.score = score
        """Changes when it is measured again."""
        self._applications: dict[str, Application] = {}
        self._fragments: dict[str, Described] = {}
        """Fragments of all applications; replaced, never changed: the executor's thread reads it too."""
        self._runs = Runs()
        self._derived: dict[str, Described] = {}
        """Runs of pieces that were grouped for tasks; replaced, never changed."""

    def add_application(self, application: Application) -> None:
        """Add or replace an application.

        Raises:
            CatalogueFullError: there are too many applications.
        """
        if application.name not in self._applications and len(self._applications) >= MAX_APPLICATIONS:
            raise CatalogueFullError(application.name)
        self._applications[application.name] = application
        fragments: dict[str, Described] = {}
        for known in self._applications.values():
            sizes = _micro_batches(known)
            for fragment in known.fragments:
                entry = _described(known, fragment, sizes.get(fragment.sha256, 1))
                other = fragments.get(fragment.sha256)
                larger = entry.micro_batch if other is None else max(entry.micro_batch, other.micro_batch)
                fragments[fragment.sha256] = replace(entry, micro_batch=larger)
        self._fragments, self._derived = fragments, {}

    def add_run(self, sha256: str, application: str, run: PieceRun) -> None:
        """Note the pieces of a fragment that was grouped for a task. The application may come later."""
        forgotten = self._runs.add(sha256, application, run)
        if forgotten in self._derived:
            self._derived = {key: entry for key, entry in self._derived.items() if key != forgotten}

    def __iter__(self) -> Iterator[Described]:
        """Iterate over all fragments, each once. In any thread."""
        return iter((*self._fragments.values(), *self._derived.values()))

    def described(self, sha256: str) -> Described | None:
        """Return what is known of a fragment; None if no application has it."""
        return self._known(sha256) or self._derive(sha256)

    def stored(self, files: Sequence[str]) -> tuple[str, ...]:
        """Return the fragments that have all their files on disk.

        Args:
            files: Hashes of the files on disk, most recently used first.

        Returns:
            Hashes of fragments, most recently used first. A fragment is as old as its oldest file.
        """
        ages = {sha256: age for age, sha256 in enumerate(files)}
        found = {
            sha256: max(ages[file.sha256] for file in entry.files)
            for sha256, entry in self._fragments.items()
            if all(file.sha256 in ages for file in entry.files)
        }
        return tuple(sorted(found, key=found.__getitem__))

    def call_ms(self, sha256: str) -> float:
        """Return the fixed time of a call of a fragment here, as described; 0 if unknown."""
        found = self._known(sha256)
        if found is None:
            return 0.0
        return cost.call_ms(found.fragment.milliseconds_per_call, self._slowness(found.reference_score))

    def expected_ms(self, sha256: str, images: int, measured: Line | None) -> float:
        """Return the time of a call on so many images: as measured here, else as described, else 0."""
        if measured is not None:
            return measured.of(images)
        found = self._known(sha256)
        if found is None:
            return 0.0
        fragment, slow = found.fragment, self._slowness(found.reference_score)
        each_call_ms = cost.call_ms(fragment.milliseconds_per_call, slow)
        each_image_ms = cost.image_ms(fragment.milliseconds_per_image, slow, nan)
        return cost.work_ms(1, images, each_call_ms, each_image_ms)

    def _known(self, sha256: str) -> Described | None:
        return self._fragments.get(sha256) or self._derived.get(sha256)

    def _derive(self, sha256: str) -> Described | None:
        application = self._applications.get(self._runs.application(sha256) or "")
        fragment = None if application is None else self._runs.derive(sha256, application)
        if application is None or fragment is None:
            return None
        micro_batch = max(variant.micro_batch for variant in application.variants)
        found = _described(application, fragment, micro_batch)
        self._derived = {**self._derived, sha256: found}
        return found

    def _slowness(self, reference_score: float) -> float:
        """Return how many times as long a call takes here; as long as described if no score was measured."""
        return cost.slowness(reference_score, self.score or reference_score)


def _described(application: Application, fragment: Fragment, micro_batch: int) -> Described:
    return Described(
        fragment,
        application.files_of(fragment),
        application.stage_of(fragment),
        application.reference_score,
        micro_batch,
    )


def _micro_batches(application: Application) -> dict[str, int]:
    """Return the size of the largest micro-batch that comes to each fragment."""
    sizes: dict[str, int] = {}
    for variant in application.variants:
        for stage in variant.stages:
            sizes[stage.fragment] = max(variant.micro_batch, sizes.get(stage.fragment, 1))
    return sizes
