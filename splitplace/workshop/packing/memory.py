"""Measure what the fragments of an application take of a node's memory, in child processes."""

import tempfile
from pathlib import Path

from pydantic import TypeAdapter

from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import Limits, Preparer
from splitplace.messages.application import Application, Fragment
from splitplace.messages.measured_memory import MeasuredMemory
from splitplace.policies.memory import is_prepared
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.packing.unfinished import NOTHING, Unfinished

_ANY_BYTES = 1 << 40
"""No limit: the machine that measures has more memory than a node."""


def with_memory(
    application: Application, pieces: Path, told: Told = tell_nobody, kept: Unfinished = NOTHING
) -> Application:
    """Return the application with the memory of its fragments measured on this machine.

    Each is loaded and run as a node does it, in a process of its own: those with large weights are prepared
    first. What cannot be measured keeps no figure, and is reckoned from its weights and tensors.

    Args:
        application: The application.
        pieces: Folder with its files, each named by its hash.
        told: Function that is told what is being done, and what could not be measured.
        kept: What an interrupted run has measured, and this one measures.
    """
    told(f"measuring the memory of {len(application.fragments)} fragments")
    with tempfile.TemporaryDirectory(prefix="splitplace-") as folder:
        forms = PreparedForms(Path(folder), _ANY_BYTES)
        preparer = Preparer(pieces, forms, max_tensor_bytes=_ANY_BYTES)
        try:
            fragments = []
            for fragment in application.fragments:
                memory = _measured(preparer, application, fragment, told, kept)
                fragments.append(fragment.model_copy(update={"memory": memory}))
                forms.free(_ANY_BYTES)
        finally:
            preparer.close()
    return application.model_copy(update={"fragments": tuple(fragments)})


def _measured(
    preparer: Preparer, application: Application, fragment: Fragment, told: Told, kept: Unfinished
) -> MeasuredMemory | None:
    micro_batch = max(
        variant.micro_batch
        for variant in application.variants
        if any(each.fragment == fragment.sha256 for each in variant.stages)
    )
    try:
        return kept.once(
            "memory",
            (fragment.sha256, micro_batch),
            TypeAdapter(MeasuredMemory),
            lambda: _of_fragment(preparer, application, fragment, micro_batch),
        )
    except FragmentError as error:
        told(f"the memory of pieces {fragment.first} to {fragment.end - 1} was not measured: {error}")
        return None


def _of_fragment(
    preparer: Preparer, application: Application, fragment: Fragment, micro_batch: int
) -> MeasuredMemory:
    """Prepare, load and run a fragment in processes of its own. Raises FragmentError."""
    stage, limits = application.stage_of(fragment), Limits(_ANY_BYTES)
    if is_prepared(fragment):
        made = preparer.prepare(stage, [micro_batch], limits)
        memory, preparing_bytes = made.memory, made.preparing_bytes
    else:
        memory, preparing_bytes = preparer.measure_joined(stage, [micro_batch], limits), 0
    return MeasuredMemory(
        preparing_bytes=preparing_bytes,
        loading_bytes=memory.loading_bytes,
        loaded_bytes=memory.loaded_bytes,
        running_bytes=memory.runs[-1].private_bytes,
    )
