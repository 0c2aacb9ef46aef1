"""What Prometheus scrapes on `/metrics`, with a bounded number of series.

Gauges and counters are the figures of the topics below `metrics/` and `availability/`. Histograms are made
from the ends of tasks that this process saw.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from splitplace.bus.figures import EXPIRY_S
from splitplace.commands.dashboard.families import FAMILIES, Family
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.messages.base import Message
from splitplace.messages.metrics import Availability
from splitplace.messages.topics import METRICS_SENSOR, Topic

OTHER: Final = "other"
"""Label value of everything beyond a bound."""
MAX_FIGURES = 4096
MAX_NAMES = 64
"""Applications, decisions and nodes that histograms tell apart, each."""
MAX_PAIRS = 256
"""Pairs of application and decision that histograms tell apart."""
SENSOR_EXPIRY_S = 660
"""Figures of silent sensors are repeated seldom."""

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RATIOS: Final = (0.25, 0.5, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 2.0, 4.0, 10.0)

TOPICS: Final[tuple[Topic[Message], ...]] = tuple(
    {family.topic.pattern: family.topic for family in FAMILIES}.values()
)

HISTOGRAMS: Final = {
    "splitplace_response_seconds": ("From arrival to answer.", ("application", "decision"), SECONDS),
    "splitplace_wait_seconds": ("Waiting of a task's stages, summed.", ("application", "decision"), SECONDS),
    "splitplace_prediction_ratio": (
        "Actual over predicted time, of tasks answered in full.",
        ("application", "decision"),
        RATIOS,
    ),
    "splitplace_node_wait_seconds": ("Waiting of a stage on a node.", ("node",), SECONDS),
    "splitplace_node_compute_seconds": ("Computing of a stage on a node.", ("node",), SECONDS),
    "splitplace_node_prediction_ratio": (
        "Computing time of a stage over the expected one.",
        ("node",),
        RATIOS,
    ),
}
"""Help, labels and buckets of each histogram."""


@dataclass
class _Names:
    """Gives the first values of a label their own names, and all others one."""

    most: int
    known: set[tuple[str, ...]] = field(default_factory=set)

    def bounded(self, *values: str) -> tuple[str, ...]:
        if values not in self.known:
            if len(self.known) >= self.most:
                return (OTHER,) * len(values)
            self.known.add(values)
        return values


class Exposition(Collector):
    """The registry behind `/metrics`."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Nothing is known.

        Args:
            now_s: a clock in seconds.
        """
        self._now_s = now_s
        self._figures: dict[str, tuple[Topic[Message], dict[str, str], Message, float]] = {}
        self._pairs, self._nodes = _Names(MAX_PAIRS), _Names(MAX_NAMES)
        self.is_connected: Callable[[], bool] = lambda: False
        self._registry = CollectorRegistry()
        self._histograms = {
            name: Histogram(name, text, labels, buckets=buckets, registry=self._registry)
            for name, (text, labels, buckets) in HISTOGRAMS.items()
        }
        self._registry.register(self)

    def apply(self, name: str, message: Message) -> None:
        """Take in a figure.

        Args:
            name: its topic without prefix.
            message: its content.
        """
        for topic in TOPICS:
            if (found := topic.match(name)) is not None:
                if name in self._figures or len(self._figures) < MAX_FIGURES:
                    self._figures[name] = (topic, found, message, self._now_s())
                return

    def clear(self, name: str) -> None:
        """Forget the figure on a topic."""
        self._figures.pop(name, None)

    def forget_figures(self) -> None:
        """Forget all figures: the broker may be a new one, and tells what it keeps."""
        self._figures.clear()

    def count(self, record: TaskRecord) -> None:
        """Count a task that has ended."""
        end = record.finished
        if end is None or end.status != "answered":
            return
        pair = self._pairs.bounded(end.application, end.variant or "")
        self._observe("splitplace_response_seconds", pair, end.response_ms / 1000)
        self._observe("splitplace_wait_seconds", pair, sum(each.queue_ms for each in end.stages) / 1000)
        if end.predicted_ratio is not None:
            self._observe("splitplace_prediction_ratio", pair, end.predicted_ratio)
        attempt = record.attempts.get(end.attempt)
        placed = attempt.placed if attempt else None
        expected = {(each.stage, each.node): each.work_ms for each in placed.stages} if placed else {}
        for report in end.stages:
            node = self._nodes.bounded(report.node)
            self._observe("splitplace_node_wait_seconds", node, report.queue_ms / 1000)
            self._observe("splitplace_node_compute_seconds", node, report.compute_ms / 1000)
            if work_ms := expected.get((report.stage, report.node)):
                self._observe("splitplace_node_prediction_ratio", node, report.compute_ms / work_ms)

    def _observe(self, name: str, labels: tuple[str, ...], value: float) -> None:
        self._histograms[name].labels(*labels).observe(value)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their content type, in the form that a scraper accepts."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the figures that are not too old. The registry calls this."""
        now_s = self._now_s()
        by_topic: dict[str, list[tuple[dict[str, str], Message]]] = defaultdict(list)
        for name, (topic, levels, message, heard_s) in list(self._figures.items()):
            if now_s - heard_s > _expiry_s(topic):
                del self._figures[name]
            else:
                by_topic[topic.pattern].append((levels, message))
        connected = GaugeMetricFamily("splitplace_connected", "Whether the dashboard reaches the broker.")
        connected.add_metric((), float(self.is_connected()))
        yield connected
        for family in FAMILIES:
            yield _collected(family, by_topic[family.topic.pattern])

    def describe(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the metrics without samples, so that registering needs no clock."""
        for family in FAMILIES:
            yield _collected(family, [])


def _expiry_s(topic: Topic[Message]) -> float:
    """Return for how long a figure counts that nobody publishes again. Availabilities have last wills."""
    if topic.message is Availability:
        return float("inf")
    return SENSOR_EXPIRY_S if topic.pattern == METRICS_SENSOR.pattern else EXPIRY_S


def _collected(
    family: Family, figures: list[tuple[dict[str, str], Message]]
) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    collected: GaugeMetricFamily | CounterMetricFamily = kind(
        family.name, family.help, labels=family.label_names
    )
    for levels, message in figures:
        for figure in family.figures:
            value = getattr(message, figure.field, None)
            if value is None:
                continue
            labels = (
                *(levels[level] for level in family.labels.values()),
                *(text for _, text in figure.labels),
            )
            number = float(value == "online") if isinstance(value, str) else float(value)
            collected.add_metric(labels, number * family.scale)
    return collected
