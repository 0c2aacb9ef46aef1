"""`splitplace models inspect`: where a network can be cut, and how it is best divided."""

import re
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, get_args

import onnx
import typer
from rich.console import Console

from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.errors import ConfigurationError
from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.storage.replace import replace_file
from splitplace.workshop.cutting.balance import Device, Target
from splitplace.workshop.cutting.inspection import Inspection, balance, inspect
from splitplace.workshop.cutting.layer_split import Transport, cut
from splitplace.workshop.onnx.joining import greatest_difference
from splitplace.workshop.packing.pieces_of import future_pieces, stored_pieces
from splitplace.workshop.pieces.loaded import stage_model
from splitplace.workshop.report.drawing import draw
from splitplace.workshop.report.tables import pieces_table, points_table, stages_table, verdict
from splitplace.workshop.user_networks.from_onnx import adopt, prepared
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import read_onnx
from splitplace.workshop.user_networks.source import samples, source_of

_BYTES_PER_MS = 1000.0
"""Bytes in a millisecond at 1 MB/s."""
_MEGABYTE = 1e6
_STAGES = 3
_TRIAL_IMAGES = 4
_SMALL_SIDE = 96
_SMALL_BATCH, _LARGE_BATCH = 16, 2
_CHAIN = re.compile(r"layer(-\d+)?")
"""Variants that are chains of the whole network."""


def inspect_command(
    network: Annotated[str, typer.Argument(help="An application in the store, or FILE.onnx.")],
    *,
    stages: Annotated[
        int | None, typer.Option(min=1, help="Fragments of the chain. [default: 3, or one for each speed]")
    ] = None,
    speeds: Annotated[
        str,
        typer.Option(help="Speeds of the nodes, in order; 1 is this machine. [default: small boards, 1/6]"),
    ] = "",
    bandwidth: Annotated[
        float | None, typer.Option(min=0.001, help="MB/s between nodes. [default: 12.5]")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0, help="MB that a stage may need on its node. [default: any]")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Images in a call. [default: 16, or 2 of large pictures]")
    ] = None,
    drawing: Annotated[
        Path | None, typer.Option("--draw", help="Also draw the network and its cuts into this SVG file.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a network's pieces, where it can be cut, and what each stage costs.

    Every segment between two places to cut is timed on this machine first; that takes some seconds.
    """
    models = model_store(store)
    target = _target(speeds, bandwidth, memory)
    application, model = _load(network, models)
    wanted = stages or (len(target.nodes) if len(target.nodes) > 1 else _STAGES)
    batch = micro_batch or _usual_batch(model)
    name = application.name if application else Path(network).stem
    found = inspect(model, name=name, stages=wanted, target=target, micro_batch=batch)
    if application and application.chains:
        pieces = stored_pieces(application, batch)
    else:
        pieces = future_pieces(name, model, batch)
    found = replace(found, pieces=pieces)
    if drawing is not None:
        replace_file(drawing, draw(found).encode())
    if as_json:
        print_json(found)
        return
    console = Console()
    console.print(pieces_table(found))
    console.print(points_table(found))
    console.print(stages_table(found))
    console.print(verdict(found.plan))
    console.print(_differences(model, found))
    if application:
        _print_chains(console, found, application, models, batch)
    if drawing is not None:
        console.print(f"drawn: {drawing}", markup=False)


def _load(network: str, store: ModelStore) -> tuple[Application | None, onnx.ModelProto]:
    """Return a network by the name of its application, or from a file."""
    if network.endswith(".onnx"):
        file, _ = prepared(read_onnx(Path(network)))
        source = source_of(file)
        pixels = Preprocessing.for_channels(source.spec.shape[0], (), (), 1.0) if source.is_pictures else None
        return None, adopt(file, pixels).model
    application = next((each for each in store.applications() if each.name == network), None)
    if application is None:
        raise StoreError(store.root, f"has no application {network!r}; a file's name ends with .onnx")
    whole = application.variant("whole").stages[0]
    return application, stage_model(store, application, application.fragment(whole.fragment))


def _target(speeds: str, bandwidth: float | None, memory: float | None) -> Target:
    """Return the nodes that the options describe. Raises ConfigurationError."""
    usual = Device()
    try:
        slowdowns = [1 / float(speed) for speed in speeds.split(",")] if speeds else [usual.slowdown]
    except (ValueError, ZeroDivisionError):
        slowdowns = []
    if not slowdowns or not all(0 < slowdown < inf for slowdown in slowdowns):
        raise ConfigurationError(f"--speeds {speeds!r} is no list of speeds above 0")
    link = bandwidth * _BYTES_PER_MS if bandwidth else usual.link_bytes_per_ms
    most = memory * _MEGABYTE if memory is not None else usual.memory_bytes
    return Target(tuple(Device(slowdown, link, most) for slowdown in slowdowns))


def _usual_batch(model: onnx.ModelProto) -> int:
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[2:]]
    return _SMALL_BATCH if max(sides, default=0) <= _SMALL_SIDE else _LARGE_BATCH


def _differences(model: onnx.ModelProto, found: Inspection) -> str:
    """Say how far the chain's logits are from the whole's, by what crosses the cuts."""
    images = samples(source_of(model).spec, _TRIAL_IMAGES)
    exact, rounded = (
        greatest_difference(model, cut(model, found.plan.tensors, transport), images)
        for transport in get_args(Transport)
    )
    return (
        f"Logits of the chain differ from the whole's by at most {exact:.1e}, and by {rounded:.1e} with "
        f"float16 between the stages ({_TRIAL_IMAGES} random pictures)."
    )


def _print_chains(
    console: Console, found: Inspection, application: Application, store: ModelStore, micro_batch: int
) -> None:
    """Compare the chains in the store with the best ones."""
    for variant in application.variants:
        if not _CHAIN.fullmatch(variant.name):
            continue
        fragments = [
            stage_model(store, application, application.fragment(stage.fragment)) for stage in variant.stages
        ]
        held = balance(found, fragments, micro_batch=micro_batch)
        console.print(
            f"{variant.name} in the store: the slowest of {len(fragments)} stages computes "
            f"{held.slowest_ms:.3f} ms an image here, in the best possible cut {held.best_ms:.3f} ms "
            f"({held.ratio:.2f}x)"
        )
