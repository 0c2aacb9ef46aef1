"""Small made-up applications and clusters with round figures, for tests that compute by hand."""

from collections.abc import Iterable, Sequence
from math import inf

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.messages.cluster import ClusterState, FragmentTiming, NodeState
from splitplace.messages.tensors import TensorSpec
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import PlacementRequest
from splitplace.policies.prediction import Job
from tests.support.chains import nominal_chains, nominal_run
from tests.support.kinds import kind_named

MEGABYTE = 1_000_000
REFERENCE_SCORE = 10.0
PIXELS = TensorSpec(dtype="uint8", shape=(1000,))
FEATURES = TensorSpec(dtype="float32", shape=(500,))
LOGITS = TensorSpec(dtype="float32", shape=(2,))
ONE_LOGIT = TensorSpec(dtype="float32", shape=(1,))


def sha(name: str) -> str:
    return name.encode().hex().ljust(64, "0")[:64]


def fragment(
    name: str,
    *,
    image_ms: float = 1.0,
    call_ms: float = 0.0,
    megabytes: float = 1.0,
    file_bytes: int = 0,
    source: TensorSpec = PIXELS,
    output: TensorSpec = LOGITS,
) -> Fragment:
    return nominal_run(
        name,
        source,
        output,
        file_bytes,
        weight_bytes=0,
        peak_memory_bytes=int(megabytes * MEGABYTE),
        flops_per_image=1.0,
        milliseconds_per_image=image_ms,
        milliseconds_per_call=call_ms,
    )


def chain(
    name: str, fragments: Sequence[Fragment], *, micro_batch: int = 4, accuracy: float = 0.9
) -> Variant:
    stages = tuple(
        Stage(
            name=f"{name}-{index}",
            fragment=piece.sha256,
            source=f"{name}-{index - 1}" if index else "input",
            classes=(0, 1) if index == len(fragments) - 1 else (),
        )
        for index, piece in enumerate(fragments)
    )
    return Variant(
        name=name,
        kind=kind_named(name),
        stages=stages,
        micro_batch=micro_batch,
        accuracy=accuracy,
        accuracy_images=10_000,
    )


def star(name: str, fragments: Sequence[Fragment], *, micro_batch: int = 4, accuracy: float = 0.8) -> Variant:
    """Two branches, one class each."""
    stages = tuple(
        Stage(name=f"{name}-{index}", fragment=piece.sha256, source="input", classes=(index,))
        for index, piece in enumerate(fragments)
    )
    return Variant(
        name=name,
        kind=kind_named(name),
        stages=stages,
        micro_batch=micro_batch,
        accuracy=accuracy,
        accuracy_images=10_000,
    )


def application(fragments: Iterable[Fragment], variants: Iterable[Variant], name: str = "toy") -> Application:
    fragments = tuple(fragments)
    return Application(
        name=name,
        title="Made up",
        input=PIXELS,
        labels=("no", "yes"),
        default_deadline_ms=100.0,
        reference_score=REFERENCE_SCORE,
        variants=tuple(variants),
        fragments=fragments,
        chains=nominal_chains(fragments),
    )


def three_ways(
    *, image_ms: float = 1.0, call_ms: float = 0.0, megabytes: float = 3.0, micro_batch: int = 4
) -> Application:
    """Whole and layer (3 stages of a third each) of accuracy .9, semantic (2 branches of a fifth) of .8."""
    whole = fragment("whole", image_ms=image_ms, call_ms=call_ms, megabytes=megabytes)
    specs = (PIXELS, FEATURES, FEATURES, LOGITS)
    layers = [
        fragment(
            f"layer{index}",
            image_ms=image_ms / 3,
            call_ms=call_ms,
            megabytes=megabytes / 3,
            source=specs[index],
            output=specs[index + 1],
        )
        for index in range(3)
    ]
    branches = [
        fragment(
            f"branch{index}",
            image_ms=image_ms / 5,
            call_ms=call_ms,
            megabytes=megabytes / 5,
            output=ONE_LOGIT,
        )
        for index in range(2)
    ]
    return application(
        (whole, *layers, *branches),
        (
            chain("whole", [whole], micro_batch=micro_batch),
            chain("layer", layers, micro_batch=micro_batch),
            star("semantic", branches, micro_batch=micro_batch),
        ),
    )


def node(
    name: str,
    *,
    speed: float = 1.0,
    megabytes: float = 100.0,
    link: float = 100.0,
    loaded: Iterable[str] = (),
    queue_ms: float = 0.0,
    silent_ms: float = 0.0,
    online: bool = True,
    boot: int = 0,
    timings: Iterable[tuple[str, float]] = (),
    threads: int = 1,
    together: float = 1.0,
    load_ms: float | None = None,
    up: float | None = None,
    round_trip_ms: float = 0.0,
) -> NodeState:
    """A node `speed` times as fast as the reference."""
    return NodeState(
        node=name,
        boot=f"{boot:016x}",
        online=online,
        silent_ms=silent_ms,
        score=speed * REFERENCE_SCORE,
        threads=threads,
        together=together,
        memory_budget_bytes=int(megabytes * MEGABYTE),
        loaded=tuple(loaded),
        queue_ms=queue_ms,
        queue_length=0,
        cpu_ratio=0.0,
        link_megabytes_per_second=link,
        up_megabytes_per_second=up,
        round_trip_ms=round_trip_ms,
        timings=tuple(
            FragmentTiming(fragment=fragment, milliseconds_per_image=ms) for fragment, ms in timings
        ),
        load_ms=load_ms,
    )


def snapshot(*nodes: NodeState, broker: float | None = None) -> ClusterState:
    return ClusterState(sequence=1, broker_megabytes_per_second=broker, nodes=nodes)


def cluster(*nodes: NodeState, now_ms: float = 0.0, broker: float | None = None) -> ClusterView:
    view = ClusterView()
    view.apply(snapshot(*nodes, broker=broker), now_ms)
    return view


def all_of(app: Application) -> tuple[str, ...]:
    """Every fragment: for nodes that have loaded all."""
    return tuple(piece.sha256 for piece in app.fragments)


def job(app: Application, variant: str, batch: int) -> Job:
    return Job(app, app.variant(variant), batch)


def request(
    app: Application,
    variant: str,
    batch: int,
    *,
    start_ms: float = 0.0,
    due_ms: float = inf,
    avoid: Iterable[str] = (),
) -> PlacementRequest:
    return PlacementRequest("c.t", job(app, variant, batch), start_ms, due_ms, frozenset(avoid))
