"""What an application takes on a running system's nodes, in plain words and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splitplace.bus.settings import Settings
from splitplace.commands.shared.output import print_json
from splitplace.commands.shared.running_system import ask_system, found_network
from splitplace.commands.shared.wording import counted
from splitplace.errors import ConfigurationError
from splitplace.messages.cluster import ClusterState
from splitplace.planning.idle_nodes import IdleVariant, nodes_as_idle, on_idle_nodes
from splitplace.terminal import printable

_MS_OF_SECONDS = 1000.0
_EXACT_BELOW_MS = 10.0


def show_on_nodes(network: str, settings: Settings, store: Path | None, *, as_json: bool) -> None:
    """Ask a running system, and print what each variant of an application takes there.

    Raises:
        SplitPlaceError: it cannot be asked, has no such application, or no node that could run it.
    """
    if network.endswith(".onnx"):
        raise ConfigurationError(
            f"a running system has no file {network}: make an application of it with splitplace models add, "
            "and give its name"
        )
    state, applications = ask_system(settings, "inspect", store)
    application, idle = found_network(network, applications), nodes_as_idle(state)
    variants = on_idle_nodes(application, idle)
    if as_json:
        print_json(as_json_value(application.name, idle, variants))
        return
    print(printable(summary(len(idle.nodes), variants)))
    for line in lines(variants):
        print(printable(line))


def as_json_value(application: str, idle: ClusterState, variants: Sequence[IdleVariant]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "application": application,
        "summary": summary(len(idle.nodes), variants),
        "nodes": [
            {"name": node.node, "score": node.score, "memory_budget_bytes": node.memory_budget_bytes}
            for node in idle.nodes
        ],
        "variants": [asdict(variant) for variant in variants],
    }


def summary(nodes: int, variants: Sequence[IdleVariant]) -> str:
    """Say in a sentence what the fastest variant of each kind takes, and which kinds fit nowhere."""
    by_time = sorted(
        variants, key=lambda variant: (variant.predicted_ms is None, variant.predicted_ms or 0.0)
    )
    best = {variant.kind: variant for variant in reversed(by_time)}
    chosen = [variant for variant in by_time if best[variant.kind] is variant]
    said = "; ".join(
        f"{each.variant} fits none ({_why(each)})"
        if each.predicted_ms is None
        else f"{each.variant} {_time(each.predicted_ms)} over {', '.join(each.nodes)}"
        for each in chosen
    )
    return f"On your {counted(nodes, 'node')}: {said}."


def lines(variants: Sequence[IdleVariant]) -> Iterator[str]:
    """Say of each variant in a line what it takes and where its stages are, or why it fits none."""
    for each in variants:
        if each.predicted_ms is None:
            yield f"{each.variant}: fits none: {_why(each)}"
            continue
        said = f"{each.variant}: one input {_time(each.predicted_ms)}"
        if each.micro_batch > 1 and each.micro_batch_ms is not None:
            said += f", {each.micro_batch} inputs {_time(each.micro_batch_ms)}"
        if each.first_ms is not None:
            said += f" (now {_time(each.first_ms)}: it must be loaded first)"
        where = ", ".join(f"{stage.stage} on {', '.join(stage.nodes)}" for stage in each.stages)
        yield f"{said}; {where}"


def _why(variant: IdleVariant) -> str:
    """Return the reason without the name of the variant, which is said before it."""
    return variant.reason.removeprefix(f"{variant.variant}: ")


def _time(time_ms: float) -> str:
    if time_ms >= _MS_OF_SECONDS:
        return f"{time_ms / _MS_OF_SECONDS:.1f} s"
    return f"{time_ms:.0f} ms" if time_ms >= _EXACT_BELOW_MS else f"{time_ms:.1f} ms"
