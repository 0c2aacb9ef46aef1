"""Checks the routes of tensors that come in. Pure."""

from splitplace.messages.frames import FrameError, Route, TensorHeader
from splitplace.messages.limits import MAX_BATCH, MAX_STAGES


def checked_route(header: TensorHeader, node: str) -> Route:
    """Return the route of a tensor. Raises FrameError if this node cannot or must not follow it."""
    route = header.route
    if route is None or route.node != node or route.stage != header.stage:
        raise FrameError(f"the route does not lead to {node}: {route}")
    if header.images > MAX_BATCH or header.micro_batch >= header.micro_batches:
        raise FrameError(
            f"micro-batch {header.micro_batch} of {header.micro_batches}, {header.images} images"
        )
    if len(header.trace) >= MAX_STAGES:
        raise FrameError(f"{len(header.trace)} stages were run before")
    return route
