"""Decides which fragments are loaded and when, and keeps account of it. `opening` does the work.

Fragments that a task needs are loaded at once, several at a time. Fragments that may be needed later are
loaded one by one while nothing is computed, because loading takes the CPU from tasks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from math import nan
from pathlib import Path
from typing import Any, TypeVar

from splitplace.bus.background import now_ms
from splitplace.edge_node.catalogue import Catalogue, Described
from splitplace.edge_node.changes import Changes
from splitplace.edge_node.download import DownloadError
from splitplace.edge_node.executor import Executor
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.graph_check import GraphRefusedError
from splitplace.edge_node.load_times import LoadTimes
from splitplace.edge_node.memory import MemoryBudget
from splitplace.edge_node.opening import LoadError, Opener, Stopwatch
from splitplace.edge_node.quarantine import Quarantine
from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.body import PieceError
from splitplace.edge_node.stage.prepared import FormTooLargeError
from splitplace.edge_node.stage_forms import StageForms
from splitplace.messages.application import Application
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FailureKind, FragmentLoad
from splitplace.messages.pieces import StoredFile, as_described
from splitplace.policies import cost

T = TypeVar("T")

log = logging.getLogger(__name__)

CATALOGUE_PATIENCE_S = 5.0
"""Time to wait for the description of a fragment: a frame may come before the retained manifest."""
MAX_HINTS = MAX_FRAGMENTS_LISTED
"""Fragments that may wait for an idle moment; further hints are dropped."""
CANNOT_LOAD_MS = 1e6
"""Stands for a time to load without end; messages carry finite times."""
NEWEST_WEIGHT = 0.3
"""Weight of the newest fragment in the moving average of load times."""


class Loader:
    """Runs one background task for each fragment that is wanted and not loaded."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        store: FragmentStore,
        executor: Executor,
        budget: MemoryBudget,
        fetch: Callable[[Sequence[StoredFile]], Awaitable[tuple[Path, ...]]],
        on_failure: Callable[[str, FailureKind, str], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        quarantine: Quarantine,
        clock: Callable[[], float] = now_ms,
        on_change: Callable[[], None] = lambda: None,
        link: Callable[[], float | None] = lambda: None,
        gains: Gains = ONE_THREAD,
        forms: StageForms | None = None,
    ) -> None:
        """A loader with nothing loaded.

        Args:
            catalogue: descriptions of fragments.
            store: files on disk.
            executor: gets the loaded fragments.
            budget: memory of all loaded fragments.
            fetch: downloads files that are not in the store, and returns where they lie.
            on_failure: told the hash, kind and reason when a wanted fragment cannot be loaded.
            spawn: runs a coroutine, with a name, in the background.
            quarantine: fragments that must not be loaded now.
            clock: measures how long opening a file takes, in ms.
            on_change: told when a fragment begins to be loaded, and when it is loaded or cannot be.
            link: returns the speed at which files come, in MB/s; None before it was measured.
            gains: cores that fragments are loaded for.
            forms: prepared forms of fragments; None = all are joined as they are.
        """
        self._catalogue = catalogue
        self._store = store
        self._executor = executor
        self._budget = budget
        self._on_failure = on_failure
        self._spawn = spawn
        self._quarantine = quarantine
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._hints: dict[str, None] = {}
        """Fragments to load while nothing is computed, in this order."""
        self._gives_way: dict[str, None] = {}
        """Loaded fragments that make room for these."""
        self._idle_task: asyncio.Task[None] | None = None
        self._idle_fetch: str | None = None
        """The fragment that is being fetched because it may be needed later."""
        self._on_change = on_change
        self._times = LoadTimes()
        self._began_ms: dict[str, float] = {}
        """When the loading of fragments began."""
        self._link = link
        self._map_ms: float | None = None
        self._changes = Changes()
        self._opener = Opener(
            store=store,
            executor=executor,
            budget=budget,
            fetch=fetch,
            quarantine=quarantine,
            forms=forms,
            gains=gains,
            clock=clock,
            changes=self._changes,
            loading=self._loading.keys,
            on_files=self._note_files,
        )

    @property
    def loading(self) -> int:
        """Number of fragments that are being fetched or loaded."""
        return len(self._loading)

    @property
    def loads(self) -> tuple[FragmentLoad, ...]:
        """Fragments that are being fetched or loaded."""
        return tuple(
            FragmentLoad(fragment=fragment, left_ms=self._left_ms(fragment)) for fragment in self._loading
        )

    def _left_ms(self, sha256: str) -> float | None:
        """Return the expected time until a fragment is loaded; None before anything was measured."""
        described, line, link = self._catalogue.described(sha256), self._times.line(), self._link()
        if described is None or link is None or sha256 not in self._began_ms:
            return None
        size = described.fragment.file_bytes
        load_ms = nan if line is None else line.load_ms(size)
        expected_ms = cost.fetch_ms(size, link, load_ms)
        return max(0.0, expected_ms - (now_ms() - self._began_ms[sha256]))

    def opening(self) -> tuple[tuple[str, float], ...]:
        """Return the fragments that are being read from the disk, and for how long (ms). In any thread."""
        return self._opener.opening()

    def preparing(self) -> tuple[tuple[str, float], ...]:
        """Return the fragment that is being prepared, and for how long (ms). In any thread."""
        return self._opener.preparing()

    @property
    def loaded_bytes(self) -> int:
        """Private memory reserved by fragments that are loaded, or being loaded or prepared."""
        return self._budget.reserved_bytes

    def activation_bytes(self, fragment: str) -> int | None:
        """Return what a further run of a fragment takes at the same time; None if unknown. In any thread."""
        described = self._catalogue.described(fragment)
        return None if described is None else self._opener.activation_bytes(described.fragment)

    @property
    def mapped_bytes(self) -> int:
        """Weights that fragments map beside that."""
        return self._budget.mapped_bytes

    @property
    def loaded(self) -> tuple[str, ...]:
        """Fragments that can run at once."""
        return tuple(fragment for fragment in self._budget.reserved if fragment not in self._loading)

    @property
    def load_ms(self) -> float | None:
        """Moving average of the time to fetch, prepare and load a fragment, without waits for memory.

        Very long while nothing can be stored, so that placement gives this node only what it has loaded.
        """
        line = self._times.line()
        return CANNOT_LOAD_MS if self._store.trouble else line and line.fixed_ms

    @property
    def load_ms_per_megabyte(self) -> float:
        """Time that each megabyte of a fragment's files adds to loading it."""
        line = self._times.line()
        return 0.0 if line is None else line.megabyte_ms

    @property
    def map_ms(self) -> float | None:
        """Moving average of the time to load a fragment that is prepared, without waits for memory."""
        return self._map_ms

    def want(self, fragment: str) -> None:
        """Load a fragment unless it is loaded; mark it as used."""
        self._hints.pop(fragment, None)
        self._gives_way.pop(fragment, None)
        self._budget.use(fragment)
        if fragment == self._idle_fetch:
            self._idle_fetch = None  # from now on a task needs it
        if fragment in self._loading or self._executor.has_session(fragment):
            return
        self.make_way()
        self._start(fragment)

    def _start(self, fragment: str) -> None:
        self._began_ms[fragment] = now_ms()
        self._loading[fragment] = self._spawn(self._try_to_load(fragment), f"load {fragment[:12]}")
        self._on_change()

    def make_way(self) -> None:
        """Put off what is fetched for later: a task needs the link or the memory. What has come stays."""
        fragment, self._idle_fetch = self._idle_fetch, None
        if fragment is not None:
            self._loading.pop(fragment).cancel()
            del self._began_ms[fragment]
            self._hints[fragment] = None

    def want_when_idle(self, fragments: Iterable[str], gives_way: Iterable[str] = ()) -> None:
        """Load fragments one by one while nothing is computed, if they fit into free memory.

        Args:
            fragments: their hashes.
            gives_way: what may be unloaded for them, until a task needs it again. If it was to be loaded,
                it is not any more.
        """
        self._gives_way = dict.fromkeys(gives_way)
        for fragment in self._gives_way:
            self._hints.pop(fragment, None)
        for fragment in fragments:
            is_there = fragment in self._loading or self._executor.has_session(fragment)
            if not is_there and len(self._hints) < MAX_HINTS:
                self._hints[fragment] = None
        if self._hints and self._idle_task is None:
            self._idle_task = self._spawn(self._load_when_idle(), "load when idle")

    def something_changed(self) -> None:
        """Look again for room: a job is done or gone."""
        self._changes.note()

    def add_application(self, application: Application) -> None:
        """Add a catalogue entry; fragments that waited for it can be loaded."""
        self._catalogue.add_application(application)
        self._changes.note()

    async def _load_when_idle(self) -> None:
        try:
            while self._hints:
                if self._executor.busy() or self._loading:
                    await self._changes.wait()
                    continue
                sha256 = next(iter(self._hints))
                del self._hints[sha256]
                with suppress(LoadError):
                    described = await self._described(sha256)
                    if self._store.trouble or self._quarantine.refusal(sha256):
                        continue
                    fits = await self._fits(described)
                    is_there = sha256 in self._loading or self._executor.has_session(sha256)
                    if fits and not is_there:
                        self._idle_fetch = sha256
                        self._start(sha256)
                        await asyncio.wait([self._loading[sha256]])
        finally:
            self._idle_task = None

    async def _fits(self, described: Described) -> bool:
        """Whether a fragment can be loaded, if need be in place of some that give way and are not busy."""
        while not (fits := await self._opener.fits_beside(described)):
            spare = self._gives_way.keys() & set(self.loaded) - self._executor.busy() - set(self._loading)
            sha256 = next((each for each in self._gives_way if each in spare), None)
            if sha256 is None:
                break
            del self._gives_way[sha256]
            await self._opener.unload(sha256)
        return fits

    async def _try_to_load(self, sha256: str) -> None:
        failed: LoadError | None = None
        try:
            await self._load(sha256)
        except LoadError as error:
            failed = error
        except (
            *(DownloadError, FragmentError, FormTooLargeError, GraphRefusedError),
            *(PieceError, OSError),
        ) as error:
            failed = LoadError(f"fragment {sha256[:12]}: {error}")
        except MemoryError:
            failed = LoadError(f"fragment {sha256[:12]}: out of memory while loading", "memory")
        except Exception as error:
            log.exception("loading fragment %s", sha256)
            failed = LoadError(f"fragment {sha256[:12]}: {error!r}")
        finally:
            if self._loading.get(sha256) is asyncio.current_task():  # else it was put off
                del self._loading[sha256], self._began_ms[sha256]
                if self._idle_fetch == sha256:
                    self._idle_fetch = None
                if not self._executor.has_session(sha256):
                    self._opener.release(sha256)
            self._changes.note()
            self._on_change()
        if failed is not None:
            self._on_failure(sha256, failed.kind, failed.reason)

    async def _load(self, sha256: str) -> None:
        refusal = self._quarantine.refusal(sha256)
        if refusal is not None:
            raise LoadError(f"fragment {sha256[:12]}: {refusal}")
        described = await self._described(sha256)
        fragment, watch = described.fragment, Stopwatch()
        runtime, was_there = await self._opener.open(described, watch)
        ends = ((fragment.input, fragment.inputs), (fragment.output, fragment.outputs))
        if (as_described(runtime.inputs), as_described(runtime.outputs)) != ends:
            raise LoadError(
                f"fragment {sha256[:12]} has other inputs or outputs than its application describes"
            )
        self._executor.add_session(sha256, runtime)
        if was_there:
            self._map_ms = _averaged(self._map_ms, watch.elapsed_ms())
        else:
            self._times.add(fragment.file_bytes, watch.elapsed_ms())

    def _note_files(self, sha256: str) -> None:
        """Note that a fragment has all its files: opening it is soon done, and cannot be broken off."""
        if self._idle_fetch == sha256:
            self._idle_fetch = None

    async def _described(self, sha256: str) -> Described:
        try:
            async with asyncio.timeout(CATALOGUE_PATIENCE_S):
                while (described := self._catalogue.described(sha256)) is None:
                    await self._changes.wait()
        except TimeoutError:
            raise LoadError(f"no application describes fragment {sha256[:12]}") from None
        return described


def _averaged(before_ms: float | None, newest_ms: float) -> float:
    """Return a moving average with its newest value."""
    return newest_ms if before_ms is None else before_ms + NEWEST_WEIGHT * (newest_ms - before_ms)
