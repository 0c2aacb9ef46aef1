"""A loader on a bench: its fragments lie on a disk next door, and nothing is ever computed."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from splitplace.bus.background import BackgroundTasks
from splitplace.edge_node.catalogue import Catalogue
from splitplace.edge_node.disk import NodeDisk
from splitplace.edge_node.executor import Executor
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.loader import Loader
from splitplace.edge_node.memory import MemoryBudget
from splitplace.edge_node.quarantine import Quarantine
from splitplace.edge_node.queue import JobQueue
from splitplace.edge_node.stage.children import Command
from splitplace.edge_node.stage.preparer import MEASURE, PREPARE, Preparer
from splitplace.edge_node.stage_forms import StageForms
from splitplace.messages.application import Application
from splitplace.messages.cluster import FailureKind
from splitplace.messages.pieces import StoredFile
from splitplace.storage.model_store import ModelStore
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import pass_time

FRAGMENT_BYTES = 100_000
"""Size of each fragment of the tiny application; the whole takes three times as much."""
PLENTY = 1 << 30


@dataclass
class Bench:
    """A loader whose fragments lie on a disk next door, and an executor that never computes."""

    application: Application
    models: ModelStore
    executor: Executor
    quarantine: Quarantine
    store: FragmentStore
    fetched: list[str] = field(default_factory=list)
    failures: list[tuple[str, FailureKind]] = field(default_factory=list)
    fetching: int = 0
    disk_error: OSError | None = None
    most_at_once: int = 0
    fetch_s: float = 0.0
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is cleared, nothing arrives."""
    disk: NodeDisk = field(init=False)
    catalogue: Catalogue = field(init=False)
    forms: StageForms = field(init=False)
    budget: MemoryBudget = field(init=False)
    loader: Loader = field(init=False)

    async def fetch(self, files: Sequence[StoredFile]) -> tuple[Path, ...]:
        self.fetching += 1
        self.most_at_once = max(self.most_at_once, self.fetching)
        try:
            await asyncio.to_thread(pass_time, self.fetch_s)
            await self.held.wait()
        finally:
            self.fetching -= 1
        if self.disk_error is not None:
            raise self.disk_error
        self.fetched += [file.sha256 for file in files]
        paths = [self.store.folder / file.sha256 for file in files]
        for path in paths:
            shutil.copy(self.models.file_path(path.name), path)
        return tuple(paths)

    def note_failure(self, sha256: str, kind: FailureKind, _: str) -> None:
        self.failures.append((sha256, kind))

    def files(self, *fragments: str) -> list[str]:
        """Hashes of the files of these fragments, each once."""
        described = [self.application.fragment(fragment) for fragment in fragments]
        return list(
            dict.fromkeys(file.sha256 for each in described for file in self.application.files_of(each))
        )

    def fragments(self, variant: str) -> tuple[str, ...]:
        return tuple(stage.fragment for stage in self.application.variant(variant).stages)


@asynccontextmanager
async def bench(
    folder: Path,
    *,
    budget_bytes: int = 100 * FRAGMENT_BYTES,
    weight_bytes: int = 100,
    disk_bytes: int = 10_000_000,
    prepare: Command = PREPARE,
    measure: Command = MEASURE,
    timeout_s: float = 60.0,
    link: float | None = None,
) -> AsyncIterator[Bench]:
    application = build_tiny_application(
        folder / "models",
        peak_memory_bytes=FRAGMENT_BYTES,
        weight_bytes=weight_bytes,
    )
    catalogue = Catalogue(50.0)
    catalogue.add_application(application)
    disk = NodeDisk(folder / "node", disk_bytes)
    made = Bench(
        application,
        ModelStore(folder / "models"),
        Executor(JobQueue(max_bytes=1_000_000), lambda _: None),
        Quarantine(folder),
        disk.files,
    )
    preparer = Preparer(
        disk.files.folder, disk.forms, max_tensor_bytes=PLENTY, prepare=prepare, measure=measure
    )
    made.disk, made.catalogue = disk, catalogue
    made.forms = StageForms(disk, budget_bytes=PLENTY, timeout_s=timeout_s, preparer=preparer)
    made.budget = MemoryBudget(budget_bytes)
    made.held.set()
    tasks = BackgroundTasks()
    made.loader = Loader(
        catalogue=catalogue,
        store=made.store,
        executor=made.executor,
        budget=made.budget,
        fetch=made.fetch,
        link=lambda: link,
        on_failure=made.note_failure,
        spawn=tasks.spawn,
        quarantine=made.quarantine,
        forms=made.forms,
    )
    try:
        yield made
    finally:
        await tasks.stop()
        made.forms.close()
