"""Loads fragments into memory: finds their description, fetches them, makes room within the budget.

Fragments that a task needs are loaded at once, several at a time. Fragments that may be needed later are
loaded one by one while nothing is computed, because loading takes the CPU from tasks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from splitplace.bus.background import now_ms
from splitplace.edge_node.catalogue import Catalogue, Described
from splitplace.edge_node.download import DownloadError
from splitplace.edge_node.executor import Executor
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.graph_check import GraphRefusedError, check_file, check_stage
from splitplace.edge_node.memory import DoesNotFitError, MemoryBudget
from splitplace.edge_node.quarantine import Quarantine
from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.edge_node.sessions import FragmentError, give_back_memory
from splitplace.edge_node.stage.body import PieceError
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session
from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment, StoredFile
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED, FailureKind, FragmentLoad

T = TypeVar("T")

log = logging.getLogger(__name__)

CATALOGUE_PATIENCE_S = 5.0
"""Time to wait for the description of a fragment: a frame may come before the retained manifest."""
MEMORY_PATIENCE_S = 5.0
"""Time to wait until busy fragments make room."""
MAX_HINTS = MAX_FRAGMENTS_LISTED
"""Fragments that may wait for an idle moment; further hints are dropped."""
CANNOT_LOAD_MS = 1e6
"""Stands for a time to load without end; messages carry finite times."""
SECOND_COPY = 0.25
"""Share of the memory left beside a fragment that a second copy of its weights may take, for all cores."""
NEWEST_WEIGHT = 0.3
"""Weight of the newest fragment in the moving average of load times."""


class _LoadError(SplitPlaceError):
    def __init__(self, reason: str, kind: FailureKind = "fragment") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: FailureKind = kind


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
        gains: Gains = ONE_THREAD,
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
            gains: cores that fragments are loaded for.
        """
        self._catalogue = catalogue
        self._store = store
        self._executor = executor
        self._budget = budget
        self._fetch = fetch
        self._on_failure = on_failure
        self._spawn = spawn
        self._quarantine = quarantine
        self._clock = clock
        self._gains = gains
        self._opened_ms: dict[str, float] = {}
        """When fragments began to be read from the disk and loaded."""
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._hints: dict[str, None] = {}
        """Fragments to load while nothing is computed, in this order."""
        self._idle_task: asyncio.Task[None] | None = None
        self._idle_fetch: str | None = None
        """The fragment that is being fetched because it may be needed later."""
        self._on_change = on_change
        self._load_ms: float | None = None
        self._changed = asyncio.Event()

    @property
    def loading(self) -> int:
        """Number of fragments that are being fetched or loaded."""
        return len(self._loading)

    @property
    def loads(self) -> tuple[FragmentLoad, ...]:
        """Fragments that are being fetched or loaded."""
        return tuple(FragmentLoad(fragment=fragment) for fragment in self._loading)

    def opening(self) -> tuple[tuple[str, float], ...]:
        """Return the fragments that are being read from the disk, and for how long (ms). In any thread."""
        return tuple(
            (fragment, self._clock() - began_ms) for fragment, began_ms in tuple(self._opened_ms.items())
        )

    @property
    def loaded_bytes(self) -> int:
        """Memory reserved by fragments that are loaded or being loaded."""
        return self._budget.reserved_bytes

    @property
    def loaded(self) -> tuple[str, ...]:
        """Fragments that can run at once."""
        return tuple(fragment for fragment in self._budget.reserved if fragment not in self._loading)

    @property
    def load_ms(self) -> float | None:
        """Moving average of the time to fetch and load a fragment, without waits for memory.

        Very long while nothing can be stored, so that placement gives this node only what it has loaded.
        """
        return CANNOT_LOAD_MS if self._store.trouble else self._load_ms

    def want(self, fragment: str) -> None:
        """Load a fragment unless it is loaded; mark it as used."""
        self._hints.pop(fragment, None)
        self._budget.use(fragment)
        if fragment == self._idle_fetch:
            self._idle_fetch = None  # from now on a task needs it
        if fragment in self._loading or self._executor.has_session(fragment):
            return
        self.make_way()
        self._start(fragment)

    def _start(self, fragment: str) -> None:
        self._loading[fragment] = self._spawn(self._try_to_load(fragment), f"load {fragment[:12]}")
        self._on_change()

    def make_way(self) -> None:
        """Put off what is fetched for later: a task needs the link or the memory. What has come stays."""
        fragment, self._idle_fetch = self._idle_fetch, None
        if fragment is not None:
            self._loading.pop(fragment).cancel()
            self._hints[fragment] = None

    def want_when_idle(self, fragments: Iterable[str]) -> None:
        """Load fragments one by one while nothing is computed, if they fit into free memory."""
        for fragment in fragments:
            is_there = fragment in self._loading or self._executor.has_session(fragment)
            if not is_there and len(self._hints) < MAX_HINTS:
                self._hints[fragment] = None
        if self._hints and self._idle_task is None:
            self._idle_task = self._spawn(self._load_when_idle(), "load when idle")

    def something_changed(self) -> None:
        """Look again for room: a job is done or gone."""
        self._changed.set()

    def add_application(self, application: Application) -> None:
        """Add a catalogue entry; fragments that waited for it can be loaded."""
        self._catalogue.add_application(application)
        self._changed.set()

    async def _load_when_idle(self) -> None:
        try:
            while self._hints:
                if self._executor.busy() or self._loading:
                    await self._next_change()
                    continue
                sha256 = next(iter(self._hints))
                del self._hints[sha256]
                with suppress(_LoadError):
                    fragment = (await self._described(sha256)).fragment
                    if self._store.trouble or self._quarantine.refusal(sha256):
                        continue
                    free = self._budget.budget_bytes - self._budget.reserved_bytes
                    is_there = sha256 in self._loading or self._executor.has_session(sha256)
                    if _needed_bytes(fragment) <= free and not is_there:
                        self._idle_fetch = sha256
                        self._start(sha256)
                        await asyncio.wait([self._loading[sha256]])
        finally:
            self._idle_task = None

    async def _try_to_load(self, sha256: str) -> None:
        failed: _LoadError | None = None
        try:
            await self._load(sha256)
        except _LoadError as error:
            failed = error
        except (DownloadError, FragmentError, GraphRefusedError, PieceError, OSError) as error:
            failed = _LoadError(f"fragment {sha256[:12]}: {error}")
        except MemoryError:
            failed = _LoadError(f"fragment {sha256[:12]}: out of memory while loading", "memory")
        except Exception as error:
            log.exception("loading fragment %s", sha256)
            failed = _LoadError(f"fragment {sha256[:12]}: {error!r}")
        finally:
            if self._loading.get(sha256) is asyncio.current_task():  # else it was put off
                del self._loading[sha256]
                if self._idle_fetch == sha256:
                    self._idle_fetch = None
                if not self._executor.has_session(sha256):
                    self._budget.release(sha256)
            self._changed.set()
            self._on_change()
        if failed is not None:
            self._on_failure(sha256, failed.kind, failed.reason)

    async def _load(self, sha256: str) -> None:
        refusal = self._quarantine.refusal(sha256)
        if refusal is not None:
            raise _LoadError(f"fragment {sha256[:12]}: {refusal}")
        described = await self._described(sha256)
        fragment = described.fragment
        if _needed_bytes(fragment) > self._budget.budget_bytes:  # before anything is fetched for it
            raise _does_not_fit(DoesNotFitError(_needed_bytes(fragment), self._budget.budget_bytes), sha256)
        began_ms = now_ms()
        with self._store.keeping([file.sha256 for file in described.files]):
            paths = await self._files(described)
            if self._idle_fetch == sha256:
                self._idle_fetch = None  # opening it is soon done, and cannot be broken off
            waits_ms = now_ms()
            await self._make_room(fragment)
            began_ms += now_ms() - waits_ms
            runtime = await self._opening(sha256, lambda: self._open(described, paths))
        if (runtime.input, runtime.output) != (fragment.input, fragment.output):
            raise _LoadError(
                f"fragment {sha256[:12]} has other inputs or outputs than its application describes"
            )
        self._executor.add_session(sha256, runtime)
        took_ms, before_ms = now_ms() - began_ms, self._load_ms
        self._load_ms = took_ms if before_ms is None else before_ms + NEWEST_WEIGHT * (took_ms - before_ms)

    async def _files(self, described: Described) -> tuple[Path, ...]:
        """Return where a fragment's files lie, in their order, after fetching those that are missing."""

        def find() -> dict[StoredFile, Path | None]:
            return {file: self._store.find(file.sha256) for file in described.files}

        sha256 = described.fragment.sha256
        found = await self._opening(sha256, find)
        missing = [file for file, path in found.items() if path is None]
        if missing:
            found |= zip(missing, await self._fetched(sha256, missing), strict=True)
        return tuple(path for path in found.values() if path is not None)

    async def _fetched(self, sha256: str, files: Sequence[StoredFile]) -> tuple[Path, ...]:
        if self._store.trouble:
            raise _LoadError(f"fragment {sha256[:12]}: {self._store.trouble}")
        try:
            return await self._fetch(files)
        except OSError as error:
            self._store.note_trouble(error)
            raise

    async def _opening(self, sha256: str, work: Callable[[], T]) -> T:
        """Do something with a file in a thread. A disk that hangs keeps it there."""
        self._opened_ms[sha256] = self._clock()
        try:
            return await asyncio.to_thread(work)
        finally:
            del self._opened_ms[sha256]

    def _open(self, described: Described, paths: tuple[Path, ...]) -> FragmentRuntime:
        sha256, stage, folder = described.fragment.sha256, described.stage, self._store.folder
        threads, spinning = self._threads(described.fragment), self._gains.spinning
        if stage is None:
            check_file(paths[0], self._budget.budget_bytes)
            return self._guarded(sha256, lambda: load_fragment(paths[0], threads=threads, spinning=spinning))
        joined = joined_from(folder, stage)
        check_stage(joined, self._budget.budget_bytes)

        def load() -> FragmentRuntime:
            wide = None
            if threads > 1:
                wide = joined_session(stage, joined, folder, threads, spinning=spinning)
            return FragmentRuntime(joined_session(stage, joined, folder), wide)

        return self._guarded(sha256, load)

    def _guarded(self, sha256: str, load: Callable[[], FragmentRuntime]) -> FragmentRuntime:
        """Load a fragment. If that ends this process, the fragment is to blame."""
        self._quarantine.begin(sha256)
        try:
            return load()
        finally:
            self._quarantine.end(sha256, ran=False)

    def _threads(self, fragment: Fragment) -> int:
        """Return the threads that a run on all cores gets: more than one if a second copy of weights fits."""
        left = self._budget.budget_bytes - _needed_bytes(fragment)
        return self._gains.threads if fragment.weight_bytes <= SECOND_COPY * left else 1

    async def _described(self, sha256: str) -> Described:
        try:
            async with asyncio.timeout(CATALOGUE_PATIENCE_S):
                while (described := self._catalogue.described(sha256)) is None:
                    await self._next_change()
        except TimeoutError:
            raise _LoadError(f"no application describes fragment {sha256[:12]}") from None
        return described

    async def _make_room(self, fragment: Fragment) -> None:
        sha256, needed = fragment.sha256, _needed_bytes(fragment)
        if self._threads(fragment) > 1:
            needed += fragment.weight_bytes
        try:
            async with asyncio.timeout(MEMORY_PATIENCE_S):
                while True:
                    busy = self._executor.busy() | self._loading.keys()
                    evicted = self._budget.reserve(sha256, needed, busy)
                    if evicted is not None:
                        break
                    await self._next_change()
        except DoesNotFitError as error:
            raise _does_not_fit(error, sha256) from error
        except TimeoutError:
            free = self._budget.budget_bytes - self._budget.reserved_bytes
            raise _LoadError(
                f"fragment {sha256[:12]} needs {needed} bytes of memory, {free} are free, the rest is busy",
                "memory",
            ) from None
        sessions = [self._executor.remove_session(fragment) for fragment in evicted]
        if sessions:
            await asyncio.to_thread(_free, sessions)

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _needed_bytes(fragment: Fragment) -> int:
    """Return the memory to reserve: as described, but at least that of the file."""
    return max(fragment.peak_memory_bytes, fragment.file_bytes)


def _does_not_fit(error: DoesNotFitError, sha256: str) -> _LoadError:
    return _LoadError(f"fragment {sha256[:12]} {error}", "memory")


def _free(sessions: list[FragmentRuntime | None]) -> None:
    """Free sessions; the list holds the only references to them. Blocks for milliseconds."""
    sessions.clear()
    give_back_memory()
