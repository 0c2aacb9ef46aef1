"""What the pages and `/api` show, made from the state. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from splitplace.commands.dashboard.health import Health, health
from splitplace.commands.dashboard.minutes import Period, period
from splitplace.commands.dashboard.state import HOUR_MINUTES, DashboardState, NodeRecord, SensorRecord
from splitplace.commands.shared.task_record import TaskRow, row
from splitplace.messages.application import Application, Variant
from splitplace.messages.metrics import TaskMetrics
from splitplace.policies.memory import described_bytes

_RATE_S = 10.0


@dataclass(frozen=True, slots=True)
class NowView:
    """The system at a glance."""

    health: Health
    hour: Period
    tasks_per_second: float
    """Accepted in the last ten seconds."""
    in_flight: int | None
    energy_joules: float | None
    online_nodes: int
    nodes: int
    minutes: tuple[tuple[int, int, int], ...]
    """Minute since 1970, finished and on-time tasks."""
    refusals: dict[str, int]


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node; None = unknown."""

    node: str
    online: bool
    gone_s: float
    """How long it has been gone."""
    trouble: str
    score: float | None
    threads: int | None
    cpu_ratio: float | None
    memory_budget_bytes: int | None
    loaded_bytes: int | None
    mapped_bytes: int | None
    holds: tuple[str, ...]
    """Fragments that are loaded, by application and stage."""
    loading: int
    queue_length: int | None
    queue_ms: float | None
    up_megabytes_per_second: float | None
    down_megabytes_per_second: float | None
    round_trip_ms: float | None
    temperature_celsius: float | None
    throttled: bool | None
    executed: int | None
    energy_joules: float | None


@dataclass(frozen=True, slots=True)
class VariantView:
    """One way to run an application."""

    name: str
    kind: str
    accuracy: float
    accuracy_images: int
    milliseconds: float
    """Time of one input on the reference node, along the longest way through its stages, without sending."""
    stages: tuple[tuple[str, str, int], ...]
    """Name, source and peak memory in bytes."""


@dataclass(frozen=True, slots=True)
class NetworkView:
    """An application."""

    name: str
    title: str
    input_shape: tuple[int, ...]
    labels: int
    default_deadline_ms: float
    variants: tuple[VariantView, ...]
    pieces: tuple[tuple[str, int, int], ...]
    """Chains of pieces: name, number of pieces, bytes of their files."""
    metrics: TaskMetrics | None


@dataclass(frozen=True, slots=True)
class SensorView:
    """A sensor, since the dashboard started; what it had refused and late, since the gateway did."""

    sensor: str
    application: str
    finished: int
    on_time: int
    late: int
    refused: int
    lost: int
    """Expired or failed."""
    last_outcome: str
    seen_s: float
    per_minute: int
    """Tasks sent in the last minute, also those that were refused."""
    under_way: int
    """Accepted tasks without an answer: a sensor may hold as many as are free for all."""
    quota: int | None
    """Tasks that it may have under way while others have theirs."""
    quota_ratio: float | None
    """How much of its quota it uses, of tasks or of bytes."""
    late_ratio: float | None
    """Share of its tasks without an answer before their deadline, as the gateway counts."""
    label: str | None
    """That of its last answer, where this dashboard may read it."""
    confidence: float | None
    last_reason: str
    """Why the last answer was what it was."""
    picture: str
    """Key of its last picture; empty if there is none."""


@dataclass(frozen=True, slots=True)
class DecisionView:
    """A variant name over all applications."""

    variant: str
    metrics: TaskMetrics


def now_view(state: DashboardState, now_s: float, software: str) -> NowView:
    """Return the page Now."""
    state.forget(now_s)
    recent = sum(now_s - at_s <= _RATE_S for at_s, _ in state.arrivals)
    minutes = state.last_minutes(HOUR_MINUTES, now_s)
    return NowView(
        health=health(state, now_s, software),
        hour=period(minutes),
        tasks_per_second=recent / _RATE_S,
        in_flight=state.gateway.in_flight if state.gateway else None,
        energy_joules=state.cluster.energy_joules if state.cluster else None,
        online_nodes=sum(node.online for node in state.nodes.values()),
        nodes=len(state.nodes),
        minutes=tuple((each.minute, each.finished, each.on_time) for each in minutes),
        refusals=dict(state.refusals),
    )


def node_views(state: DashboardState, now_s: float) -> list[NodeView]:
    """Return the page Cluster."""
    state.forget(now_s)
    names = fragment_names(state.applications.values())
    return [_node(name, node, now_s, names) for name, node in sorted(state.nodes.items())]


def fragment_names(applications: Iterable[Application]) -> dict[str, str]:
    """Return application and stage of each fragment, by its hash."""
    return {
        stage.fragment: f"{application.name}/{stage.name}"
        for application in applications
        for variant in application.variants
        for stage in variant.stages
    }


def _node(name: str, node: NodeRecord, now_s: float, names: dict[str, str]) -> NodeView:
    state, metrics = node.state, node.metrics
    online = node.online
    loaded = state.loaded if state and online else ()
    return NodeView(
        node=name,
        online=online,
        gone_s=0.0 if online else max(now_s - node.seen_s, 0.0),
        trouble=(state.stalled or state.trouble) if state else "",
        score=state.score if state else node.info.score if node.info else None,
        threads=state.threads if state else None,
        cpu_ratio=state.cpu_ratio if state else None,
        memory_budget_bytes=state.memory_budget_bytes if state else None,
        loaded_bytes=metrics.loaded_bytes if metrics else None,
        mapped_bytes=state.mapped_bytes if state else None,
        holds=tuple(sorted({names.get(each, each[:8]) for each in loaded})),
        loading=len(state.loads) if state else 0,
        queue_length=state.queue_length if state else None,
        queue_ms=state.queue_ms if state else None,
        up_megabytes_per_second=metrics.up_megabytes_per_second if metrics else None,
        down_megabytes_per_second=metrics.down_megabytes_per_second if metrics else None,
        round_trip_ms=metrics.round_trip_ms if metrics else None,
        temperature_celsius=metrics.temperature_celsius if metrics else None,
        throttled=metrics.throttled if metrics else None,
        executed=metrics.executed if metrics else None,
        energy_joules=metrics.energy_joules if metrics else None,
    )


def task_rows(state: DashboardState, after: int = 0) -> list[TaskRow]:
    """Return the last tasks, newest first; only those changed after a number of changes."""
    records = list(state.tasks.values())
    return [row(each) for each in reversed(records) if each.change > after]


def network_views(state: DashboardState) -> list[NetworkView]:
    """Return the page Networks."""
    return [
        NetworkView(
            name=each.name,
            title=each.title,
            input_shape=each.input.shape,
            labels=len(each.labels),
            default_deadline_ms=each.default_deadline_ms,
            variants=tuple(
                VariantView(
                    variant.name,
                    variant.kind,
                    variant.accuracy,
                    variant.accuracy_images,
                    _longest_ms(each, variant),
                    tuple(
                        (stage.name, stage.source, described_bytes(each.fragment(stage.fragment)))
                        for stage in variant.stages
                    ),
                )
                for variant in each.variants
            ),
            pieces=tuple(
                (
                    known.name,
                    len(known.chain.pieces),
                    sum(piece.graph_bytes + piece.weights_bytes for piece in known.chain.pieces),
                )
                for known in each.chains
            ),
            metrics=state.by_application.get(each.name),
        )
        for _, each in sorted(state.applications.items())
    ]


def _longest_ms(application: Application, variant: Variant) -> float:
    ends: dict[str, float] = {}
    for stage in variant.stages:
        fragment = application.fragment(stage.fragment)
        own = fragment.milliseconds_per_call + fragment.milliseconds_per_image
        ends[stage.name] = ends.get(stage.source, 0.0) + own
    return max(ends.values())


def sensor_views(
    state: DashboardState, now_s: float, picture_of: Callable[[str], str] = lambda _: ""
) -> list[SensorView]:
    """Return the page Sensors, the most recent first.

    Args:
        state: what is known.
        now_s: seconds since 1970.
        picture_of: returns the key of the last picture of a sensor, empty if there is none.
    """
    per_minute = state.sent_lately(now_s)
    under_way = Counter(each.sensor for each in state.tasks.values() if each.finished is None)
    strangers = [name for name in state.sensor_metrics if name not in state.sensors]
    return [
        _sensor_view(
            state,
            name,
            per_minute=per_minute[name],
            under_way=under_way[name],
            picture=picture_of(name),
        )
        for name in (*reversed(state.sensors), *strangers)
    ]


def _sensor_view(
    state: DashboardState, name: str, *, per_minute: int, under_way: int, picture: str
) -> SensorView:
    record = state.sensors.get(name) or SensorRecord()
    metrics, latest = state.sensor_metrics.get(name), state.latest.get(name)
    return SensorView(
        sensor=name,
        application=record.application or (latest.application if latest else None) or "",
        finished=record.outcomes.total(),
        on_time=record.outcomes["on time"],
        late=record.outcomes["late"],
        refused=max(record.outcomes["refused"], metrics.refused + metrics.invalid if metrics else 0),
        lost=record.outcomes["expired"] + record.outcomes["failed"],
        last_outcome=record.last_outcome or (metrics.last_status if metrics else ""),
        seen_s=record.seen_s,
        per_minute=per_minute,
        under_way=under_way,
        quota=metrics.quota if metrics else None,
        quota_ratio=metrics.quota_ratio if metrics else None,
        late_ratio=metrics.late_ratio if metrics else None,
        label=latest.label if latest else None,
        confidence=latest.confidence if latest else None,
        last_reason=latest.reason if latest else "",
        picture=picture,
    )


def decision_views(state: DashboardState) -> list[DecisionView]:
    """Return the page Decisions."""
    return [DecisionView(name, metrics) for name, metrics in sorted(state.by_decision.items())]
