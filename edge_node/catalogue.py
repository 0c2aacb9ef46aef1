"""Descriptions of fragments from the manifests, and times that this node has measured. Pure."""

from collections import OrderedDict
from collections.abc import Sequence
from math import nan

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FragmentTiming
from splitplace.policies import cost

MAX_APPLICATIONS = 256
_KEPT = 0.9
"""Weight of all calls before the newest one."""


class CatalogueFullError(SplitPlaceError):
    """More applications than a node keeps."""


class Catalogue:
    """Fragments by hash, from the retained manifests."""

    def __init__(self, score: float) -> None:
        """An empty catalogue of a node with this benchmark score (GFLOP/s, one thread)."""
        self.score = score
        self._applications: dict[str, dict[str, tuple[Fragment, float]]] = {}
        self._fragments: dict[str, tuple[Fragment, float]] = {}
        """Fragments of all applications; replaced, never changed: the executor's thread reads it too."""

    def add_application(self, application: Application) -> None:
        """Add or replace an application.

        Raises:
            CatalogueFullError: there are too many applications.
        """
        if application.name not in self._applications and len(self._applications) >= MAX_APPLICATIONS:
            raise CatalogueFullError(application.name)
        self._applications[application.name] = {
            fragment.sha256: (fragment, application.reference_score) for fragment in application.fragments
        }
        self._fragments = {
            sha256: entry for known in self._applications.values() for sha256, entry in known.items()
        }

    def fragment(self, sha256: str) -> Fragment | None:
        """Return the description of a fragment; None if no application has it."""
        found = self._fragments.get(sha256)
        return found[0] if found else None

    def stored(self, files: Sequence[str]) -> tuple[str, ...]:
        """Return the fragments that have all their files on disk.

        Args:
            files: Hashes of the files on disk, most recently used first.

        Returns:
            Hashes of fragments, most recently used first. A fragment is as old as its oldest file.
        """
        ages = {sha256: age for age, sha256 in enumerate(files)}
        found = {
            sha256: max(ages[file.sha256] for file in fragment.files)
            for sha256, (fragment, _) in self._fragments.items()
            if all(file.sha256 in ages for file in fragment.files)
        }
        return tuple(sorted(found, key=found.__getitem__))

    def call_ms(self, sha256: str) -> float:
        """Return the fixed time of a call of a fragment here, as described; 0 if unknown."""
        found = self._fragments.get(sha256)
        return cost.call_ms(found[0].milliseconds_per_call, self._slowness(found[1])) if found else 0.0

    def expected_ms(self, sha256: str, images: int, measured_ms_per_image: float | None) -> float:
        """Return the time of a call on so many images: as measured here, else as described, else 0."""
        found = self._fragments.get(sha256)
        measured_ms = nan if measured_ms_per_image is None else measured_ms_per_image
        if found is None:
            return 0.0 if measured_ms_per_image is None else images * measured_ms
        image_ms = cost.image_ms(found[0].milliseconds_per_image, self._slowness(found[1]), measured_ms)
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
