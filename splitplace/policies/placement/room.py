"""Memory of all nodes at once, while the stages of a job are put on them."""

import numpy as np

from splitplace.messages.application import Stage
from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.cost import Flags, Floats
from splitplace.policies.job import Job


class Room:
    """Where the S stages of a job fit on N nodes, beside what was put there."""

    def __init__(self, job: Job, columns: ClusterColumns, usable: Flags) -> None:
        """Begin with the cluster as it is; nodes that are not `usable` [N] have no room."""
        self._stages = job.variant.stages
        self._usable = usable
        fragments = [job.fragments[stage.name] for stage in self._stages]
        self._row = {stage.name: row for row, stage in enumerate(self._stages)}
        self._free_bytes = columns.free_bytes()
        self._needed_bytes = np.array([columns.needed_bytes(fragment) for fragment in fragments])
        """[S, N] What a stage takes on each node; infinite where it cannot be prepared."""
        self._most_bytes: Floats = self._needed_bytes.max(axis=0)
        self._held = np.array([columns.shared(fragment.sha256) for fragment in fragments])
        """[S, N] Where a stage needs no more memory: its fragment is there already."""
        self._fits = usable & (self._held | (self._needed_bytes <= self._free_bytes))

    def fits(self, stage: Stage) -> Flags:
        """Return [N] which usable nodes have memory for a stage, beside those put there."""
        fits: Flags = self._fits[self._row[stage.name]]
        return fits

    @property
    def without(self) -> Stage | None:
        """The first stage that fits nowhere, if there is one: no placement can be found then."""
        fitting = self._fits.any(axis=1)
        return None if fitting.all() else self._stages[int(fitting.argmin())]

    def put(self, stage: Stage, index: int) -> None:
        """Count the memory of a stage on a node."""
        row = self._row[stage.name]
        if self._held[row, index]:
            return
        self._free_bytes[index] -= self._needed_bytes[row, index]
        for other in self._stages:
            if other.fragment == stage.fragment:
                self._held[self._row[other.name], index] = True
        if self._usable[index] and self._free_bytes[index] < self._most_bytes[index]:
            self._fits[:, index] = self._held[:, index] | (
                self._needed_bytes[:, index] <= self._free_bytes[index]
            )
