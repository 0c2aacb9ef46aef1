"""Turn a placement into routes and micro-batch frames. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.messages.application import Application, Stage
from splitplace.messages.frames import Route, TensorHeader, encode_bundle, tensor_frames
from splitplace.messages.groupings import GroupedVariant, as_placed, as_placed_again
from splitplace.messages.second_run import SecondPart
from splitplace.messages.task import TaskPlaced
from splitplace.services.gateway.arrays import arrays_of


def routes(grouped: GroupedVariant, nodes: Mapping[str, str]) -> tuple[Route, ...]:
    """One route for each root stage: what runs where, and who reads its output.

    Args:
        grouped: the out-tree of stages, and the pieces of those that were grouped for this task.
        nodes: node of every stage.

    Raises:
        KeyError: a stage has no node.
    """

    def route(stage: Stage) -> Route:
        return Route(
            stage=stage.name,
            node=nodes[stage.name],
            fragment=stage.fragment,
            run=grouped.runs.get(stage.name),
            next=tuple(route(child) for child in grouped.variant.children(stage.name)),
        )

    return tuple(route(stage) for stage in grouped.variant.roots)


def input_frames(
    application: Application,
    placed: TaskPlaced,
    inputs: NDArray[Any],
    expires_ms: float,
    *,
    compress: bool,
    second: SecondPart | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Node and frame, micro-batch by micro-batch, so that all branches and the whole chain start early.

    Each micro-batch has its own route: where a stage has replicas, the placement says which of them runs it.

    Args:
        application: the catalogue entry.
        placed: variant, nodes and micro-batch size.
        inputs: [batch, *application.input.shape]; rows of several inputs, from `arrays.rows_of`.
        expires_ms: time that is left until nobody wants the answer.
        compress: try zstd on the inputs.
        second: send these micro-batches alone, to the stages of their second run.

    Raises:
        KeyError: a stage has no node.
        GroupingError: the placement does not fit the application.
    """
    starts = range(0, len(inputs), placed.micro_batch)
    count = len(starts)
    numbers: Sequence[int] = range(count)
    if second is not None:
        kept = [
            inputs[starts[number] : starts[number] + placed.micro_batch] for number in second.micro_batches
        ]
        inputs, placed, numbers = np.concatenate(kept), second.placed, second.micro_batches
        starts = range(0, len(inputs), placed.micro_batch)
    grouped = as_placed(application, placed) if second is None else as_placed_again(application, placed)
    known: dict[tuple[tuple[str, str], ...], tuple[Route, ...]] = {}
    paths = placed.paths()
    for index, start in enumerate(starts):
        path = tuple(paths[index].items())
        roots = known.get(path) or known.setdefault(path, routes(grouped, paths[index]))
        micro_batch = inputs[start : start + placed.micro_batch]
        bundle = encode_bundle(arrays_of(application, micro_batch), compress=compress)
        for route in roots:
            header = TensorHeader(
                task=placed.task,
                attempt=placed.attempt,
                application=placed.application,
                variant=placed.variant,
                micro_batch=numbers[index],
                micro_batches=count,
                expires_ms=max(0.0, expires_ms),
                **bundle.fields,
                route=route,
                stage=route.stage,
                second_run=second is not None,
            )
            for frame in tensor_frames(header, bundle.body):
                yield route.node, frame
