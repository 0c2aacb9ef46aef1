"""`splitplace models inspect`: where a network can be cut, and how it is best divided."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import onnx
import typer
from rich.console import Console

from splitplace.commands.models.on_nodes import show_on_nodes
from splitplace.commands.shared.ending import ended_by_sigterm
from splitplace.commands.shared.options import BrokerOption, CredentialsOption, PrefixOption, settings_from
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.errors import ConfigurationError
from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.storage.replace import replace_file
from splitplace.workshop.cutting.balance import Device, Target
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.onnx.told_shapes import with_told_shapes
from splitplace.workshop.packing.evaluation import is_cut_whole
from splitplace.workshop.packing.pieces_of import future_pieces, stored_pieces, stored_stages
from splitplace.workshop.pieces.chain import MeasuredNetwork, measured
from splitplace.workshop.pieces.inspection import balance, inspect
from splitplace.workshop.pieces.loaded import stage_model
from splitplace.workshop.report.cuts import stored_cuts
from splitplace.workshop.report.drawing import draw
from splitplace.workshop.report.tables import memory_table, pieces_table, places_table, stages_table, verdict
from splitplace.workshop.user_networks.add import usual_micro_batch
from splitplace.workshop.user_networks.differences import chain_differences
from splitplace.workshop.user_networks.from_onnx import Wishes, adopt, prepared
from splitplace.workshop.user_networks.heads import HeadWishes
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import read_onnx
from splitplace.workshop.user_networks.source import source_of

_BYTES_PER_MS = 1000.0
"""Bytes in a millisecond at 1 MB/s."""
_MEGABYTE = 1e6
_STAGES = 3
_TRIAL_INPUTS = 4


def inspect_command(
    network: Annotated[str, typer.Argument(help="An application in the store, or FILE.onnx.")],
    *,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="Sizes that a file leaves open: 3x480x640 or images=3x480x640; again for another."
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="An input of a file that always has one value, like rate=16000."),
    ] = None,
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
        int | None,
        typer.Option(min=1, help="Inputs in a call. [default: as stored; else by their size]"),
    ] = None,
    drawing: Annotated[
        Path | None, typer.Option("--draw", help="Also draw the network and its cuts into this SVG file.")
    ] = None,
    from_system: Annotated[
        bool,
        typer.Option(
            "--from-system", help="What each variant would take on the nodes of the running system."
        ),
    ] = False,
    store: StoreOption = None,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a network's pieces, where it can be cut, and what each stage costs.

    What lies between two places to cut is timed on this machine first; that takes some seconds. With
    --from-system or --broker, a running system is asked instead: what each variant would take on its nodes,
    were they idle, and why one fits nowhere.
    """
    if from_system or broker is not None:
        given = {
            "--input": shape,
            "--set": values,
            "--stages": stages,
            "--speeds": speeds,
            "--bandwidth": bandwidth,
            "--memory": memory,
            "--micro-batch": micro_batch,
            "--draw": drawing,
        }
        _refuse_beside_system(name for name, value in given.items() if value)
        show_on_nodes(network, settings_from(broker, prefix, credentials), store, as_json=as_json)
        return
    models = model_store(store)
    target = _target(speeds, bandwidth, memory)
    with ended_by_sigterm(), TemporaryDirectory(prefix="splitplace-") as aside:
        loaded = _load(network, shape or (), values or (), models, Path(aside))
        application, batch = loaded.application, micro_batch or loaded.micro_batch
        places = measured(loaded.model)
        wanted = stages or (
            len(target.nodes) if len(target.nodes) > 1 else min(_STAGES, len(places.places) + 1)
        )
        name = application.name if application else Path(network).stem
        found = inspect(places, name=name, stages=wanted, target=target, micro_batch=batch)
        if application and application.chains:
            found = replace(
                found, pieces=stored_pieces(application, batch), stored=stored_stages(application)
            )
        else:
            found = replace(found, pieces=future_pieces(name, places, batch))
        if drawing is not None:
            replace_file(drawing, draw(found).encode())
        if as_json:
            print_json(found)
            return
        console = Console()
        console.print(pieces_table(found))
        if found.stored:
            console.print(memory_table(found))
        console.print(places_table(found))
        console.print(stages_table(found))
        console.print(verdict(found.plan))
        console.print(_differences(places, found.plan.cuts, 1 if loaded.one_by_one else _TRIAL_INPUTS))
        if application:
            _print_chains(console, places, application)
        if drawing is not None:
            console.print(f"drawn: {drawing}", markup=False)


def _refuse_beside_system(names: Iterable[str]) -> None:
    """Refuse flags that are about this machine. Raises ConfigurationError."""
    if said := ", ".join(names):
        raise ConfigurationError(f"{said}: not with --from-system, whose nodes are as they are")


@dataclass(frozen=True)
class _Loaded:
    """A network to inspect."""

    model: onnx.ModelProto
    application: Application | None
    """None for a file."""
    micro_batch: int
    one_by_one: bool
    """Whether it may have to be run on one input at a time."""


def _load(
    network: str, sizes: Sequence[str], values: Sequence[str], store: ModelStore, aside: Path
) -> _Loaded:
    """Return a network by the name of its application, or from a file. For `aside` see `read_onnx`."""
    if network.endswith(".onnx"):
        wishes = Wishes(input=",".join(sizes), values=tuple(values), head=HeadWishes("tensors"))
        file, _ = prepared(read_onnx(Path(network), aside), wishes)
        source = source_of(file)
        pixels = Preprocessing.for_channels(source.spec.shape[0], (), (), 1.0) if source.is_pictures else None
        adopted = adopt(file, pixels, replace(wishes, input="", values=()))
        usual = 1 if adopted.one_by_one else usual_micro_batch(Graph(adopted.model))
        return _Loaded(adopted.model, None, usual, adopted.one_by_one)
    application = next((each for each in store.applications() if each.name == network), None)
    if application is None:
        raise StoreError(store.root, f"has no application {network!r}; a file's name ends with .onnx")
    whole = application.variant("whole")
    model = stage_model(store, application, application.fragment(whole.stages[0].fragment))
    model = with_told_shapes(model)  # pieces tell the shapes of what crosses between them, not within
    return _Loaded(model, application, whole.micro_batch, whole.micro_batch == 1)


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


def _differences(network: MeasuredNetwork, cuts: tuple[int, ...], count: int) -> str:
    """Say how far the chain's outputs are from the whole's, by what crosses the cuts."""
    found = chain_differences(network, cuts, count)
    return (
        f"Outputs of the chain differ from the whole's by at most {found['float32']:.1e}, and by "
        f"{found['float16']:.1e} with float16 between the stages (random inputs, {count})."
    )


def _print_chains(console: Console, network: MeasuredNetwork, application: Application) -> None:
    """Compare the chains in the store with the best ones."""
    for variant in application.variants:
        if not is_cut_whole(variant):
            continue
        held = balance(network, stored_cuts(network, application, variant))
        console.print(
            f"{variant.name} in the store: the slowest of {len(variant.stages)} stages computes "
            f"{held.slowest_ms:.3f} ms an image here, in the best possible cut {held.best_ms:.3f} ms "
            f"({held.ratio:.2f}x)"
        )
