"""Prepared forms of fragments: finds them, has them made and measured, opens them, and tells what is there.

Blocks: call it in a thread.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from splitplace.edge_node.catalogue import Described
from splitplace.edge_node.disk import NodeDisk
from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.runtime import FragmentRuntime
from splitplace.edge_node.stage.memory import StageMemory, form_bytes
from splitplace.edge_node.stage.prepared import key_of
from splitplace.edge_node.stage.preparer import TIMEOUT_S, Limits, Prepared, Preparer
from splitplace.edge_node.stage.session import StageSession, prepared_session
from splitplace.messages.cluster import PreparedFragment
from splitplace.messages.pieces import ChainStage
from splitplace.policies.memory import Preparation, is_prepared

SECOND_SESSION = 0.25
"""Share of the memory left beside a fragment that a second session may take, for runs on all cores."""


@dataclass(frozen=True, slots=True)
class Form:
    """The prepared form of a fragment. It stays on the disk until `StageForms.unmap`."""

    stage: ChainStage
    prepared: Prepared
    private_bytes: int
    """Memory to reserve, as measured here."""
    activation_bytes: int
    """What a further run takes at the same time."""
    threads: int
    """Threads of a run on all cores; 1 = it cannot use them."""

    @property
    def mapped_bytes(self) -> int:
        """Weights that it maps beside that."""
        return self.prepared.mapped_bytes


class StageForms:
    """The forms on one node's disk."""

    def __init__(
        self,
        disk: NodeDisk,
        *,
        budget_bytes: int,
        timeout_s: float = TIMEOUT_S,
        gains: Gains = ONE_THREAD,
        preparer: Preparer | None = None,
    ) -> None:
        """Use the forms of a disk.

        Args:
            disk: Files of pieces, and their forms.
            budget_bytes: Memory budget of the node: limit of each tensor whose size stands in a graph.
            timeout_s: Time after which the preparation of a fragment is killed.
            gains: Cores that fragments are loaded for.
            preparer: Makes the forms; by default from the files of the disk.
        """
        self._forms = disk.forms
        self._preparer = preparer or Preparer(disk.files.folder, disk.forms, max_tensor_bytes=budget_bytes)
        self.timeout_s = timeout_s
        self._budget_bytes = budget_bytes
        self._gains = gains
        self._keys: dict[str, str] = {}

    def close(self) -> None:
        """End a preparation that runs, and begin no other."""
        self._preparer.close()

    def find(self, described: Described) -> Form | None:
        """Return the form of a fragment, which then stays; None if it is not there or not measured."""
        stage = described.stage
        key = self._key(described)
        self._forms.map(key)
        found: Prepared | None = None
        try:
            found = self._preparer.find(stage, [described.micro_batch])
        finally:
            if found is None:
                self._forms.unmap(key)
        if found is None:
            return None
        private_bytes, threads = self._reckoned(found.memory, described.micro_batch)
        activation_bytes = found.memory.activation_bytes(described.micro_batch)
        return Form(stage, found, private_bytes, activation_bytes, threads)

    def unmap(self, form: Form) -> None:
        """Let a form make room for others: it is not mapped any more."""
        self._forms.unmap(form.prepared.key)

    def begin(self, described: Described, wanted: Preparation) -> "Future[Prepared]":
        """Begin to prepare and measure a fragment whose files are on the disk. Errors: `Preparer.prepare`."""
        limits = Limits(wanted.private_bytes, self.timeout_s, packed=wanted.packed)
        return self._preparer.begin(
            described.stage,
            [described.micro_batch],
            limits,
            form_bytes(described.fragment.weight_bytes),
        )

    def open(self, form: Form) -> FragmentRuntime:
        """Map a form. Raises FragmentError, MemoryError."""

        def session(threads: int, *, spinning: bool) -> StageSession:
            made = form.prepared
            return prepared_session(form.stage, made.model, threads, spinning=spinning, packed=made.packed)

        wide = session(form.threads, spinning=self._gains.spinning) if form.threads > 1 else None
        return FragmentRuntime(session(1, spinning=False), wide)

    def report(self, catalogue: Iterable[Described]) -> tuple[PreparedFragment, ...]:
        """Return the fragments of a catalogue that are prepared and measured, most recently used first."""
        wanted = {self._key(each): each for each in catalogue if is_prepared(each.fragment)}
        found = []
        for key in self._forms.made():
            described, about = wanted.get(key), self._forms.about(key)
            if described is not None and about is not None and about.memory is not None:
                found.append(
                    PreparedFragment(
                        fragment=described.fragment.sha256,
                        private_bytes=self._reckoned(about.memory, described.micro_batch)[0],
                        mapped_bytes=about.mapped_bytes,
                    )
                )
        return tuple(found)

    def _reckoned(self, memory: StageMemory, micro_batch: int) -> tuple[int, int]:
        """Return the private memory of a fragment, and the threads of a run on all cores.

        These need a session of their own, which maps the same weights.
        """
        private_bytes = memory.private_bytes(micro_batch)
        left_bytes = self._budget_bytes - private_bytes
        if self._gains.threads > 1 and memory.loaded_bytes <= SECOND_SESSION * left_bytes:
            return private_bytes + memory.loaded_bytes, self._gains.threads
        return private_bytes, 1

    def _key(self, described: Described) -> str:
        sha256 = described.fragment.sha256
        if sha256 not in self._keys:
            self._keys[sha256] = key_of(described.stage)
        return self._keys[sha256]
