"""Prepares stages and measures them, by child processes, one at a time."""

import json
import logging
import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from splitplace.edge_node.graph_check import check_stage
from splitplace.edge_node.stage.children import (
    Children,
    Command,
    Ended,
    PrepareError,
    WroteTooMuchError,
    module,
)
from splitplace.edge_node.stage.measure import Input, Wanted
from splitplace.edge_node.stage.memory import StageMemory
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.prepare import MODEL, PACKED, PLAIN, WEIGHTS
from splitplace.edge_node.stage.prepared import FormTooLargeError, PreparedForms, key_of, too_large
from splitplace.messages.pieces import ChainStage

log = logging.getLogger(__name__)

PREPARE: Command = module("prepare")
MEASURE: Command = module("measure")
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Prepared:
    """A form on disk, and what it cost to make."""

    key: str
    model: Path
    memory: StageMemory
    mapped_bytes: int
    """Size of its weights, which a session maps."""
    was_there: bool
    """Whether it was on the disk already."""
    packed: bool = True
    """Whether its weights are laid out for this processor."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Greatest private memory of the child that prepared, looked at every 10 ms; 0 if none did."""
    preparing_bytes: int = 0
    """The same beyond what the bare child has."""


@dataclass(frozen=True)
class Limits:
    """What a preparation may take."""

    memory_bytes: int
    """Private memory of a child beyond that of a bare process."""
    timeout_s: float = TIMEOUT_S
    """Seconds until a child is killed."""
    packed: bool = True
    """Whether weights are laid out for this processor, which takes the memory of all of them."""


class Preparer:
    """Prepares stages from the pieces in one folder."""

    def __init__(
        self,
        pieces: Path,
        forms: PreparedForms,
        *,
        max_tensor_bytes: int,
        prepare: Command = PREPARE,
        measure: Command = MEASURE,
    ) -> None:
        """Name the folders.

        Args:
            pieces: Folder with graph files and weights files, each named by its hash.
            forms: Where prepared stages are kept.
            max_tensor_bytes: Limit of each tensor whose size stands in a graph, for one input.
            prepare: Command of the child process that prepares.
            measure: Command of the child process that measures.
        """
        self._pieces = pieces
        self._forms = forms
        self._max_tensor_bytes = max_tensor_bytes
        self._prepare_command = prepare
        self._measure_command = measure
        self._children = Children()

    def close(self) -> None:
        """End the child that runs, and prepare no more. Blocks for a moment."""
        self._children.close()

    def find(self, stage: ChainStage, micro_batches: Collection[int]) -> Prepared | None:
        """Return the form of a stage if it is on the disk and measured for these micro-batches. Blocks."""
        key = key_of(stage)
        model = self._forms.find(key)
        if model is None:
            return None
        about = self._forms.about(key)
        if about is None or about.memory is None or not about.memory.covers(micro_batches):
            return None
        return Prepared(key, model, about.memory, about.mapped_bytes, was_there=True, packed=about.packed)

    def prepare(
        self, stage: ChainStage, micro_batches: Collection[int], limits: Limits, form_bytes: int = 0
    ) -> Prepared:
        """Return the prepared form of a stage; make and measure what is not on the disk. Blocks.

        Args:
            stage: The stage; the files of its pieces are in the folder.
            micro_batches: Sizes of micro-batches to measure.
            limits: What it may take.
            form_bytes: Expected size of the form, for which room is made before it is written.

        Raises:
            PieceError: A piece is missing or damaged, or the pieces do not fit together.
            GraphRefusedError: A tensor of the stage is too large, or it has too many nodes.
            PrepareMemoryError: It needs more memory.
            PrepareKilledError: A child was killed, by a signal or after the timeout.
            PrepareError: ONNX Runtime refuses the stage, or the preparer is closed.
            FormTooLargeError: The disk space for forms does not hold it beside those that are mapped.
            OSError: The disk refuses.
        """
        return self.begin(stage, micro_batches, limits, form_bytes).result()

    def begin(
        self, stage: ChainStage, micro_batches: Collection[int], limits: Limits, form_bytes: int = 0
    ) -> "Future[Prepared]":
        """Begin to prepare a stage once those before it are done. Return a future, as `prepare` returns.

        Raises:
            PrepareError: The preparer is closed.
        """
        sizes = tuple(sorted({1, *micro_batches}))
        return self._children.submit(lambda: self._prepare(stage, sizes, limits, form_bytes))

    def _prepare(
        self, stage: ChainStage, micro_batches: tuple[int, ...], limits: Limits, form_bytes: int
    ) -> Prepared:
        found = self.find(stage, micro_batches)
        if found is not None:
            return found
        key, began, written = key_of(stage), time.monotonic(), Ended(b"", 0)
        model = self._forms.find(key)
        if model is None:
            joined = joined_from(self._pieces, stage)
            check_stage(joined, self._max_tensor_bytes)
            with self._forms.making(key, form_bytes) as form:
                form.packed = limits.packed
                written = self._write(joined, stage, form.folder, limits)
                form.memory = self._measured(form.folder / MODEL, stage, micro_batches, limits)
        else:
            about = self._forms.about(key)
            as_made = replace(limits, packed=about is None or about.packed)
            self._forms.note_memory(key, self._measured(model, stage, micro_batches, as_made))
        made = self.find(stage, micro_batches)
        if made is None:
            raise PrepareError("the prepared stage has gone from the disk")
        seconds = time.monotonic() - began
        log.info(
            "prepared stage %s (%s) in %.1f s, peak %.1f MiB",
            *(key[:12], PACKED if made.packed else PLAIN, seconds, written.peak_bytes / 2**20),
        )
        return replace(
            made,
            was_there=False,
            seconds=seconds,
            peak_bytes=written.peak_bytes,
            preparing_bytes=max(0, written.peak_bytes - _bare_bytes(written.answer)),
        )

    def _write(self, joined: bytes, stage: ChainStage, folder: Path, limits: Limits) -> Ended:
        """Have a stage optimised and written into a folder."""
        room_bytes = self._forms.room_bytes
        layout = PACKED if limits.packed else PLAIN
        arguments = (str(room_bytes), str(self._pieces), str(folder), layout)
        try:
            ended = self._run(self._prepare_command, arguments, joined, limits, _weights_bytes(stage))
        except WroteTooMuchError as error:
            raise FormTooLargeError(too_large(room_bytes + 1, room_bytes)) from error
        if not (folder / MODEL).exists():
            raise PrepareError("the preparation wrote no model")
        return ended

    def measure_joined(
        self, stage: ChainStage, micro_batches: Collection[int], limits: Limits
    ) -> StageMemory:
        """Have a stage loaded as it is, and run, in a child process. Blocks. Raises as `prepare` does."""
        sizes = tuple(sorted({1, *micro_batches}))
        return self._children.submit(lambda: self._measured_joined(stage, sizes, limits)).result()

    def _measured_joined(
        self, stage: ChainStage, micro_batches: tuple[int, ...], limits: Limits
    ) -> StageMemory:
        joined = joined_from(self._pieces, stage)
        check_stage(joined, self._max_tensor_bytes)
        with TemporaryDirectory() as folder:
            model = Path(folder) / MODEL
            model.write_bytes(joined)
            return self._measured(model, stage, micro_batches, limits, self._pieces)

    def _measured(
        self,
        model: Path,
        stage: ChainStage,
        micro_batches: tuple[int, ...],
        limits: Limits,
        pieces: Path | None = None,
    ) -> StageMemory:
        """Have a stage loaded and run. This also shows that it can be, before the node does it."""
        inputs = [
            Input(name=tensor.name, dtype=tensor.spec.dtype, shape=list(tensor.spec.shape))
            for tensor in stage.inputs
        ]
        wanted = Wanted(inputs=inputs, packed=limits.packed, micro_batches=list(micro_batches))
        if pieces is not None:
            wanted["weights"] = str(pieces)
        weights = model.with_name(WEIGHTS)
        mapped_bytes = weights.stat().st_size if weights.exists() else 0
        ended = self._run(
            self._measure_command, (str(model),), json.dumps(wanted).encode(), limits, mapped_bytes
        )
        try:
            return StageMemory.model_validate_json(ended.answer)
        except ValidationError as error:
            raise PrepareError(f"the measurement gave {ended.answer[:80]!r}") from error

    def _run(
        self, command: Command, arguments: tuple[str, ...], given: bytes, limits: Limits, mapped_bytes: int
    ) -> Ended:
        return self._children.run(
            command,
            arguments,
            given,
            memory_bytes=limits.memory_bytes,
            mapped_bytes=mapped_bytes,
            timeout_s=limits.timeout_s,
        )


def _bare_bytes(answer: bytes) -> int:
    """Return the private memory that a child had before it began, from what it wrote."""
    return int(answer) if answer.strip().isdigit() else 0


def _weights_bytes(stage: ChainStage) -> int:
    """Return the size of the weights files of a stage, each counted once."""
    return sum({piece.weights: piece.weights_bytes for piece in stage.pieces if piece.weights}.values())
