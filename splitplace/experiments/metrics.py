"""Every metric that a page may show, by its name in the figures of a run."""

from dataclasses import replace

from splitplace.experiments.plan import Metric

RESPONSE = "response_intervals.mean"
VIOLATIONS = "sla_violation_rate"
ENERGY = "energy_mj_per_interval.total"
ENERGY_ABOVE_IDLE = "energy_mj_per_interval.above_idle"
MERIT = ("reward", "accuracy", VIOLATIONS, RESPONSE)
"""The figures of merit that every comparison shows."""

_ALL = (
    Metric("reward", "reward", "of 100", 100, 2, "higher"),
    Metric("accuracy", "accuracy", "%", 100, 2, "higher"),
    Metric("sla_violation_rate", "SLA violations", "%", 100, 1, "lower"),
    Metric("response_intervals.mean", "response", "intervals", better="lower"),
    Metric("response_intervals.p50", "median response", "intervals", better="lower"),
    Metric("response_intervals.p95", "response, 95th percentile", "intervals", better="lower"),
    Metric("wait_intervals", "wait", "intervals", better="lower"),
    Metric("response_parts_intervals.wait", "waiting", "intervals"),
    Metric("response_parts_intervals.transfer", "transfer", "intervals"),
    Metric("response_parts_intervals.compute", "computing", "intervals"),
    Metric("fairness", "fairness", "Jain's index", decimals=3, better="higher"),
    Metric("energy_mj_per_interval.total", "energy", "MJ per interval", decimals=4, better="lower"),
    Metric(
        "energy_mj_per_interval.above_idle",
        "energy above idle",
        "MJ per interval",
        decimals=4,
        better="lower",
    ),
    Metric("cost_usd_per_task", "cost", "USD per answered task", decimals=3, better="lower"),
    Metric("objective", "objective of equation 10", decimals=3, better="higher"),
    Metric("decision_ms.p50", "decision, median", "ms", better="lower"),
    Metric("decision_ms.p99", "decision, 99th percentile", "ms", better="lower"),
    Metric("migrations", "migrations", decimals=0),
    Metric("training.high.layer.q", "Q of layer, high deadlines", decimals=3),
    Metric("training.high.semantic.q", "Q of semantic, high deadlines", decimals=3),
    Metric("training.low.layer.q", "Q of layer, low deadlines", decimals=3),
    Metric("training.low.semantic.q", "Q of semantic, low deadlines", decimals=3),
    Metric("training.response_ms.mnist", "R of mnist", "intervals"),
    Metric("training.response_ms.fashionmnist", "R of fashionmnist", "intervals"),
    Metric("training.response_ms.cifar100", "R of cifar100", "intervals"),
    Metric("training.epsilon", "epsilon", decimals=3),
    Metric("cpu_s", "processor time of the run", "s"),
    Metric("tasks.arrived", "tasks arrived", decimals=0),
    Metric("tasks.answered", "tasks answered", decimals=0, better="higher"),
    Metric("tasks.refused", "tasks refused", decimals=0, better="lower"),
    Metric("tasks.overdue_unfinished", "tasks overdue and unfinished", decimals=0, better="lower"),
    Metric("share.whole", "whole", "% of decisions", 100, 1),
    Metric("share.layer", "layer", "% of decisions", 100, 1),
    Metric("share.semantic", "semantic", "% of decisions", 100, 1),
    Metric("share.compressed", "compressed", "% of decisions", 100, 1),
    Metric("share.int8", "int8", "% of decisions", 100, 1),
    Metric("share.early-exit", "early exit", "% of decisions", 100, 1),
)


class MetricTable:
    """Look up metrics. `by_application.mnist.reward` is `reward`, labelled with the application."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = {metric.key: metric for metric in metrics}

    def of(self, key: str) -> Metric:
        """Return the metric of a key. Raises KeyError."""
        if not key.startswith("by_application."):
            return self._metrics[key]
        _, application, inner = key.split(".", 2)
        metric = self._metrics[inner]
        return replace(metric, key=key, label=f"{metric.label} of {application}")


METRICS = MetricTable(_ALL)
"""All metrics."""
