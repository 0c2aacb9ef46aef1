"""Descriptions of fragments from the manifests, and times that this node has measured. Pure."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment, StoredFile
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FragmentTiming
from splitplace.messages.pieces import ChainStage
from splitplace.policies import cost

MAX_APPLICATIONS = 256
_KEPT = 0.9
"""Weight of all calls before the newest one."""


@dataclass(frozen=True, slots=True)
class Described:
    """A fragment, and what its application says of it."""

    fragment: Fragment
    files: tuple[StoredFile, ...]
    """Everything that must be on the disk to load it."""
    stage: ChainStage | None
    """The pieces to join; None for a fragment in one file."""
    reference_score: float
    """Benchmark score of the device on which it was timed."""


class CatalogueFullError(SplitPlaceError):
    """More applications than a node keeps."""


class Catalogue:
    """Fragments by hash, from the retained manifests."""

    def __init__(self, score: float) -> None:
        """An empty catalogue of a node with this benchmark score (GFLOP/s, one thread)."""
        self.score = score
        self._applications: dict[str, dict[str, Described]] = {}
        self._fragments: dict[str, Described] = {}
        """Fragments of all applications; replaced, never changed: the executor's thread reads it too."""

    def add_application(self, application: Application) -> None:
        """Add or replace an application.

        Raises:
            CatalogueFullError: there are too many applications.
        """
        if application.name not in self._applications and len(self._applications) >= MAX_APPLICATIONS:
            raise CatalogueFullError(application.name)
        self._applications[application.name] = {
            fragment.sha256: Described(
                fragment,
                application.files_of(fragment),
                application.stage_of(fragment) if fragment.chain is not None else None,
                application.reference_score,
            )
            for fragment in application.fragments
        }
        self._fragments = {
            sha256: entry for known in self._applications.values() for sha256, entry in known.items()
        }

    def described(self, sha256: str) -> Described | None:
        """Return what is known of a fragment; None if no application has it."""
        return self._fragments.get(sha256)

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
        found = self._fragments.get(sha256)
        if found is None:
            return 0.0
        return cost.call_ms(found.fragment.milliseconds_per_call, self._slowness(found.reference_score))

    def expected_ms(self, sha256: str, images: int, measured_ms_per_image: float | None) -> float:
        """Return the time of a call on so many images: as measured here, else as described, else 0."""
        found = self._fragments.get(sha256)
        measured_ms = nan if measured_ms_per_image is None else measured_ms_per_image
        if found is None:
            return 0.0 if measured_ms_per_image is None else images * measured_ms
        slowness = self._slowness(found.reference_score)
        image_ms = cost.image_ms(found.fragment.milliseconds_per_image, slowness, measured_ms)
        return cost.work_ms(1, images, self.call_ms(sha256), image_ms)

    def _slowness(self, reference_score: float) -> float:
        """Return how many times as long a call takes here; as long as described if no score was measured."""
        return cost.slowness(reference_score, self.score or reference_score)


class Timings:
    """Moving averages of the time per image here, pacing and throttling included.

    The ratio of decayed sums, so that a call counts by its number of images. The fixed time of a call
    (`Catalogue.call_ms`) is subtracted before, since predictions add it.
    """

    def __init__(self) -> None:
        self._sums: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, fragment: str, images: int, took_ms: float) -> None:
        """Note a call: its images, and its time without the fixed time of a call."""
        total_ms, total_images = self._sums.pop(fragment, (0.0, 0.0))
        self._sums[fragment] = (_KEPT * total_ms + took_ms, _KEPT * total_images + images)
        if len(self._sums) > MAX_FRAGMENTS_LISTED:
            self._sums.popitem(last=False)

    def milliseconds_per_image(self, fragment: str) -> float | None:
        """Return the average; None before the first call."""
        sums = self._sums.get(fragment)
        return max(0.0, sums[0] / sums[1]) if sums else None

    def report(self) -> tuple[FragmentTiming, ...]:
        """Return all averages, for the vitals."""
        return tuple(
            FragmentTiming(fragment=fragment, milliseconds_per_image=max(0.0, total_ms / images))
            for fragment, (total_ms, images) in self._sums.items()
        )
