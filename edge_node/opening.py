"""Opens fragments: fetches their files, prepares them, reserves memory within the budget, and loads them.

A fragment with large weights is prepared once, in a child process, and mapped from then on. Others are loaded
as they are.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from splitplace.bus.background import now_ms
from splitplace.edge_node.catalogue import Described
from splitplace.edge_node.changes import Changes
from splitplace.edge_node.executor import Executor
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.gains import Gains
from splitplace.edge_node.graph_check import check_stage
from splitplace.edge_node.memory import DoesNotFitError, MemoryBudget
from splitplace.edge_node.quarantine import Quarantine
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.sessions import give_back_memory
from splitplace.edge_node.stage.children import PrepareKilledError, PrepareMemoryError
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session
from splitplace.edge_node.stage_forms import Form, StageForms
from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Fragment
from splitplace.messages.cluster import FailureKind
from splitplace.messages.pieces import StoredFile
from splitplace.policies.memory import (
    Preparation,
    activation_bytes,
    described_bytes,
    is_prepared,
    next_preparation,
    preparation,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

MEMORY_PATIENCE_S = 5.0
"""Time to wait until busy fragments make room."""
SECOND_COPY = 0.25
"""Share of the memory left beside a fragment that a second copy of its weights may take, for all cores."""


class LoadError(SplitPlaceError):
    """A fragment that cannot be loaded, or not now."""

    def __init__(self, reason: str, kind: FailureKind = "fragment") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: FailureKind = kind


class Stopwatch:
    """Measures the time of a load without some of its waits."""

    def __init__(self) -> None:
        self._began_ms = now_ms()

    def elapsed_ms(self) -> float:
        """Return the time so far, in ms."""
        return now_ms() - self._began_ms

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Do not count what the block takes."""
        paused_ms = now_ms()
        try:
            yield
        finally:
            self._began_ms += now_ms() - paused_ms


class Opener:
    """Brings fragments from their description to a session."""

    def __init__(
        self,
        *,
        store: FragmentStore,
        executor: Executor,
        budget: MemoryBudget,
        fetch: Callable[[Sequence[StoredFile]], Awaitable[tuple[Path, ...]]],
        quarantine: Quarantine,
        forms: StageForms | None,
        gains: Gains,
        clock: Callable[[], float],
        changes: Changes,
        loading: Callable[[], AbstractSet[str]],
        on_files: Callable[[str], None],
    ) -> None:
        """An opener that has opened nothing.

        Args:
            store: files on disk.
            executor: runs fragments; idle ones are taken from it when others need their memory.
            budget: memory of all loaded fragments.
            fetch: downloads files that are not in the store, and returns where they lie.
            quarantine: told which fragment is loaded, and whose preparation was killed.
            forms: prepared forms of fragments; None = all are joined as they are.
            gains: cores that fragments are loaded for.
            clock: measures how long opening a file takes, in ms.
            changes: noted when memory was given back, and waited for where there is none.
            loading: fragments that are being loaded, and stay.
            on_files: told the hash of a fragment when all its files are there.
        """
        self._store = store
        self._executor = executor
        self._budget = budget
        self._fetch = fetch
        self._quarantine = quarantine
        self._forms = forms
        self._gains = gains
        self._clock = clock
        self._changes = changes
        self._loading = loading
        self._on_files = on_files
        self._opened_ms: dict[str, float] = {}
        """When fragments began to be read from the disk and loaded."""
        self._held: dict[str, Form] = {}
        """Forms of fragments that are loaded or being loaded."""
        self._preparing = asyncio.Lock()
        self._prepared_since_ms: dict[str, float] = {}
        """When the preparation of a fragment began."""

    async def open(self, described: Described, watch: Stopwatch) -> tuple[FragmentRuntime, bool]:
        """Reserve memory for a fragment and load it.

        Args:
            described: the fragment.
            watch: does not count fetching, and waits for memory and for the preparation of others.

        Returns:
            The loaded fragment, and whether it was prepared already.

        Raises:
            LoadError: it does not fit, or not now.
            DownloadError: a file cannot be fetched.
            FragmentError: it is refused, or its preparation fails.
            FormTooLargeError: there is no room on the disk for its prepared form.
            GraphRefusedError: a tensor of it is too large.
            PieceError: its pieces do not fit together.
            OSError: the disk refuses.
            MemoryError: loading takes more than is left.
        """
        fragment = described.fragment
        sha256 = fragment.sha256
        if self._is_prepared(fragment):
            form, was_there = await self._form(described, watch)
            await self._make_room(sha256, form.private_bytes, watch, form.mapped_bytes)
            return await self._opening(sha256, lambda: self._map(sha256, form)), was_there
        needed = _needed_bytes(fragment)
        self._check_fits(sha256, needed)  # before anything is fetched for it
        with self._store.keeping([file.sha256 for file in described.files]):
            await self._files(described, watch)
            threads = self._threads(fragment)
            second_bytes = fragment.weight_bytes if threads > 1 else 0
            await self._make_room(sha256, needed + second_bytes, watch)
            return await self._opening(sha256, lambda: self._open(described, threads)), False

    def activation_bytes(self, fragment: Fragment) -> int:
        """Return what a further run of a fragment takes at the same time: as measured, else as described."""
        form = self._held.get(fragment.sha256)
        return activation_bytes(fragment) if form is None else form.activation_bytes

    def release(self, sha256: str) -> None:
        """Give back what was reserved for a fragment that is not loaded."""
        self._budget.release(sha256)
        self._unmap(sha256)

    async def unload(self, sha256: str) -> None:
        """Unload a fragment that no job waits for, and give its memory back."""
        self._budget.release(sha256)
        await self._unload([sha256])

    async def fits_beside(self, described: Described) -> bool:
        """Whether a fragment can be prepared and loaded without unloading another."""
        fragment = described.fragment
        if not self._is_prepared(fragment):
            return self._budget.fits_beside(_needed_bytes(fragment))
        form = await self._opening(fragment.sha256, lambda: self._stage_forms.find(described))
        if form is None:
            wanted = preparation(fragment, self._budget.budget_bytes)
            return self._budget.fits_beside(wanted.private_bytes, fragment.weight_bytes)
        self._stage_forms.unmap(form)
        return self._budget.fits_beside(form.private_bytes, form.mapped_bytes)

    def opening(self) -> tuple[tuple[str, float], ...]:
        """Return the fragments that are being read from the disk, and for how long (ms). In any thread."""
        return tuple(
            (fragment, self._clock() - began_ms) for fragment, began_ms in tuple(self._opened_ms.items())
        )

    def preparing(self) -> tuple[tuple[str, float], ...]:
        """Return the fragment that is being prepared, and for how long (ms). In any thread."""
        return tuple(
            (fragment, self._clock() - began_ms)
            for fragment, began_ms in tuple(self._prepared_since_ms.items())
        )

    def _is_prepared(self, fragment: Fragment) -> bool:
        return self._forms is not None and is_prepared(fragment)

    @property
    def _stage_forms(self) -> StageForms:
        assert self._forms is not None  # noqa: S101 - `_is_prepared`
        return self._forms

    async def _form(self, described: Described, watch: Stopwatch) -> tuple[Form, bool]:
        """Return the prepared form of a fragment, and whether it was there. It stays until `_unmap`."""
        sha256, was_there = described.fragment.sha256, True
        while (form := await self._opening(sha256, lambda: self._stage_forms.find(described))) is None:
            was_there = False
            await self._prepare(described, watch)
        self._held[sha256] = form
        self._check_fits(sha256, form.private_bytes)
        return form, was_there

    async def _prepare(self, described: Described, watch: Stopwatch) -> None:
        """Fetch the files of a fragment, and prepare it in a child process once no other is prepared."""
        fragment, budget_bytes = described.fragment, self._budget.budget_bytes
        sha256, wanted = fragment.sha256, preparation(fragment, budget_bytes)
        self._check_fits(sha256, wanted.private_bytes)  # before anything is fetched for it
        with self._store.keeping([file.sha256 for file in described.files]):
            await self._files(described, watch)
            with watch.pausing():
                await self._preparing.acquire()
            try:
                while await self._lacks_memory(described, wanted, watch):
                    if (more := next_preparation(fragment, wanted, budget_bytes)) is None:
                        raise _does_not_fit(DoesNotFitError(budget_bytes + 1, budget_bytes), sha256)
                    wanted = more
            finally:
                self._preparing.release()

    async def _lacks_memory(self, described: Described, wanted: Preparation, watch: Stopwatch) -> bool:
        """Prepare a fragment within some memory. Return whether that was too little."""
        sha256, needed = described.fragment.sha256, wanted.private_bytes
        try:
            await self._reserve(
                sha256, lambda busy: self._budget.reserve_preparing(needed, busy), needed, watch
            )
            self._prepared_since_ms[sha256] = self._clock()
            await asyncio.wrap_future(self._stage_forms.begin(described, wanted))
        except PrepareMemoryError as error:
            log.info("fragment %s: %s", sha256[:12], error)
            return True
        except PrepareKilledError as error:
            await asyncio.to_thread(self._quarantine.suspect, sha256, str(error))
            raise
        except OSError as error:
            self._store.note_trouble(error)
            raise
        finally:
            self._prepared_since_ms.pop(sha256, None)
            self._budget.release_preparing()
            self._changes.note()
        return False

    async def _files(self, described: Described, watch: Stopwatch) -> None:
        """Check the files of a fragment on the disk, and fetch those that are missing or damaged."""

        def find() -> dict[StoredFile, Path | None]:
            return {file: self._store.find(file.sha256) for file in described.files}

        sha256 = described.fragment.sha256
        found = await self._opening(sha256, find)
        missing = [file for file, path in found.items() if path is None]
        if missing:
            with watch.pausing():
                await self._fetched(sha256, missing)
        self._on_files(sha256)

    async def _fetched(self, sha256: str, files: Sequence[StoredFile]) -> None:
        if self._store.trouble:
            raise LoadError(f"fragment {sha256[:12]}: {self._store.trouble}")
        try:
            await self._fetch(files)
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

    def _open(self, described: Described, threads: int) -> FragmentRuntime:
        sha256, stage, folder = described.fragment.sha256, described.stage, self._store.folder
        spinning = self._gains.spinning
        joined = joined_from(folder, stage)
        check_stage(joined, self._budget.budget_bytes)

        def load() -> FragmentRuntime:
            wide = None
            if threads > 1:
                wide = joined_session(stage, joined, folder, threads, spinning=spinning)
            return FragmentRuntime(joined_session(stage, joined, folder), wide)

        return self._guarded(sha256, load)

    def _threads(self, fragment: Fragment) -> int:
        """Return the threads that a run on all cores gets: more than one if a second copy of weights fits."""
        left = self._budget.budget_bytes - _needed_bytes(fragment)
        return self._gains.threads if fragment.weight_bytes <= SECOND_COPY * left else 1

    def _map(self, sha256: str, form: Form) -> FragmentRuntime:
        return self._guarded(sha256, lambda: self._stage_forms.open(form))

    def _guarded(self, sha256: str, load: Callable[[], FragmentRuntime]) -> FragmentRuntime:
        """Load a fragment. If that ends this process, the fragment is to blame."""
        self._quarantine.begin(sha256)
        try:
            return load()
        finally:
            self._quarantine.end(sha256, ran=False)

    def _check_fits(self, sha256: str, needed: int) -> None:
        """Raise LoadError for what does not fit into the whole budget."""
        if needed > self._budget.budget_bytes:
            raise _does_not_fit(DoesNotFitError(needed, self._budget.budget_bytes), sha256)

    async def _make_room(self, sha256: str, needed: int, watch: Stopwatch, mapped_bytes: int = 0) -> None:
        """Reserve memory for a fragment; idle ones make room."""
        await self._reserve(
            sha256, lambda busy: self._budget.reserve(sha256, needed, busy, mapped_bytes), needed, watch
        )

    async def _reserve(
        self,
        sha256: str,
        reserve: Callable[[Container[str]], tuple[str, ...] | None],
        needed: int,
        watch: Stopwatch,
    ) -> None:
        """Call a method of the budget until there is room, and unload what it says."""
        try:
            with watch.pausing():
                async with asyncio.timeout(MEMORY_PATIENCE_S):
                    while True:
                        evicted = reserve(self._executor.busy() | self._loading())
                        if evicted is not None:
                            break
                        await self._changes.wait()
        except DoesNotFitError as error:
            raise _does_not_fit(error, sha256) from error
        except TimeoutError:
            free = self._budget.budget_bytes - self._budget.reserved_bytes
            raise LoadError(
                f"fragment {sha256[:12]} needs {needed} bytes of memory, {free} are free, the rest is busy",
                "memory",
            ) from None
        await self._unload(evicted)

    async def _unload(self, fragments: Sequence[str]) -> None:
        sessions = [self._executor.remove_session(fragment) for fragment in fragments]
        if sessions:
            await asyncio.to_thread(_free, sessions)
        for fragment in fragments:
            self._unmap(fragment)

    def _unmap(self, sha256: str) -> None:
        """Let the form of a fragment make room on the disk: it is not mapped any more."""
        form = self._held.pop(sha256, None)
        if form is not None:
            self._stage_forms.unmap(form)


def _needed_bytes(fragment: Fragment) -> int:
    """Return the memory to reserve for a fragment that is not prepared: at least that of its files."""
    return max(described_bytes(fragment), fragment.file_bytes)


def _does_not_fit(error: DoesNotFitError, sha256: str) -> LoadError:
    return LoadError(f"fragment {sha256[:12]} {error}", "memory")


def _free(sessions: list[FragmentRuntime | None]) -> None:
    """Free sessions; the list holds the only references to them. Blocks for milliseconds."""
    sessions.clear()
    give_back_memory()
