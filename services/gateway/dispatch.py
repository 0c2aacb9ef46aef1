"""Turn a placement into routes and micro-batch frames. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from splitplace.messages.application import Application, Stage
from splitplace.messages.frames import Route, TensorHeader, encode_tensor, tensor_frames
from splitplace.messages.groupings import GroupedVariant, as_placed
from splitplace.messages.task import TaskPlaced


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
    application: Application, placed: TaskPlaced, inputs: NDArray[Any], expires_ms: float, *, compress: bool
) -> Iterator[tuple[str, bytes]]:
    """Node and frame, micro-batch by micro-batch, so that all branches and the whole chain start early.

    Each micro-batch has its own route: where a stage has replicas, the placement says which of them runs it.

    Args:
        application: the catalogue entry.
        placed: variant, nodes and micro-batch size.
        inputs: [batch, *application.input.shape].
        expires_ms: time that is left until nobody wants the answer.
        compress: try zstd on the inputs.

    Raises:
        KeyError: a stage has no node.
        GroupingError: the placement does not fit the application.
    """
    grouped = as_placed(application, placed)
    known: dict[tuple[tuple[str, str], ...], tuple[Route, ...]] = {}
    paths = placed.paths()
    starts = range(0, len(inputs), placed.micro_batch)
    for index, start in enumerate(starts):
        path = tuple(paths[index].items())
        roots = known.get(path) or known.setdefault(path, routes(grouped, paths[index]))
        micro_batch = inputs[start : start + placed.micro_batch]
        codec, encoded = encode_tensor(micro_batch, compress=compress)
        for route in roots:
            header = TensorHeader(
                task=placed.task,
                attempt=placed.attempt,
                application=placed.application,
                variant=placed.variant,
                micro_batch=index,
                micro_batches=len(starts),
                expires_ms=max(0.0, expires_ms),
                dtype=application.input.dtype,
                shape=micro_batch.shape,
                codec=codec,
                encoded_bytes=len(encoded),
                route=route,
                stage=route.stage,
            )
            for frame in tensor_frames(header, encoded):
                yield route.node, frame
