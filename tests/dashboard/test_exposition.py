"""What Prometheus gets: right names, right figures, and never more series than the bounds allow."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from splitplace.bus.figures import EXPIRY_S
from splitplace.commands.dashboard.exposition import (
    HISTOGRAMS,
    MAX_FIGURES,
    MAX_NAMES,
    MAX_PAIRS,
    OTHER,
    SECONDS,
    Exposition,
)
from splitplace.commands.dashboard.families import FAMILIES
from splitplace.commands.dashboard.state import DashboardState
from splitplace.messages.metrics import OFFLINE, ONLINE, RefusalMetrics
from splitplace.messages.task import StageReport
from tests.support.messages import accepted, decided, finished

PAGE = (Path(__file__).parents[2] / "docs" / "prometheus.md").read_text(encoding="utf-8")


class Scraped:
    """An exposition, the state that feeds it, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.exposition = Exposition(lambda: self.now_s)
        self.state = DashboardState(started_s=0.0, on_end=self.exposition.count)

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Every sample by name and values of its labels."""
        text, content_type = self.exposition.text("")
        assert content_type.startswith("text/plain")
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    def end(self, task: str, **changes: Any) -> None:
        """Run a task to its end."""
        application = changes.get("application", "toy")
        for message in (accepted(task, application=application), decided(task, application=application)):
            self.state.apply("", message, self.now_s)
        self.state.apply("", finished(task, **changes), self.now_s)


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def test_figures_are_labelled_and_in_base_units(scraped: Scraped) -> None:
    scraped.exposition.apply("metrics/refusals/quota", RefusalMetrics(reason="quota", count=3))
    scraped.exposition.apply("availability/node/kitchen", OFFLINE)
    scraped.exposition.apply("availability/system", ONLINE)
    samples = scraped.samples()
    assert samples["splitplace_refusals_total", ("quota",)] == 3
    assert samples["splitplace_node_available", ("kitchen",)] == 0
    assert samples["splitplace_online", ()] == 1
    assert samples["splitplace_connected", ()] == 0


def test_figures_of_a_process_that_was_killed_end(scraped: Scraped) -> None:
    scraped.exposition.apply("metrics/refusals/quota", RefusalMetrics(reason="quota", count=3))
    scraped.exposition.apply("metrics/refusals/poison", RefusalMetrics(reason="poison", count=1))
    scraped.exposition.apply("availability/system", ONLINE)
    scraped.exposition.clear("metrics/refusals/poison")
    assert ("splitplace_refusals_total", ("poison",)) not in scraped.samples()
    scraped.now_s += EXPIRY_S + 1
    samples = scraped.samples()
    assert ("splitplace_refusals_total", ("quota",)) not in samples
    assert samples["splitplace_online", ()] == 1, "a last will takes it back"


def test_histograms_count_each_answered_task_once(scraped: Scraped) -> None:
    stages = (StageReport(stage="whole", node="kitchen", queue_ms=30.0, compute_ms=60.0),)
    for _ in range(2):
        scraped.end(
            "c.1",
            response_ms=100.0,
            stages=stages,
            predicted_ms=50.0,
            after_decision_ms=100.0,
            variant="whole",
        )
    scraped.end("c.2", status="expired", on_time=False)
    samples = scraped.samples()
    pair = ("toy", "whole")
    assert samples["splitplace_response_seconds_count", pair] == 1
    assert samples["splitplace_response_seconds_sum", pair] == pytest.approx(0.1)
    assert samples["splitplace_wait_seconds_sum", pair] == pytest.approx(0.03)
    assert samples["splitplace_prediction_ratio_sum", pair] == pytest.approx(2.0)
    assert samples["splitplace_node_compute_seconds_sum", ("kitchen",)] == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("name", "most", "changes"),
    [
        ("splitplace_response_seconds_count", MAX_PAIRS, lambda number: {"application": f"a{number}"}),
        (
            "splitplace_node_wait_seconds_count",
            MAX_NAMES,
            lambda number: {
                "stages": (StageReport(stage="s", node=f"n{number}", queue_ms=1.0, compute_ms=1.0),)
            },
        ),
    ],
)
def test_no_number_of_names_makes_more_series_than_the_bound(
    scraped: Scraped, name: str, most: int, changes: Callable[[int], dict[str, Any]]
) -> None:
    for number in range(most + 20):
        scraped.end(f"c.{number}", **changes(number))
    found = {labels: value for (each, labels), value in scraped.samples().items() if each == name}
    assert len(found) == most + 1
    assert next(value for labels, value in found.items() if OTHER in labels) == 20


def test_figures_are_bounded(scraped: Scraped) -> None:
    for number in range(MAX_FIGURES + 9):
        scraped.exposition.apply(f"availability/node/n{number}", ONLINE)
    found = [key for key in scraped.samples() if key[0] == "splitplace_node_available"]
    assert len(found) == MAX_FIGURES


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "{x}"])
def test_hostile_names_stay_in_their_label(scraped: Scraped, name: str) -> None:
    scraped.end("c.1", application="toy", variant="whole")
    scraped.exposition.apply(f"metrics/refusals/{name}", RefusalMetrics(reason="quota", count=1))
    assert scraped.samples()["splitplace_refusals_total", (name,)] == 1


def test_the_page_lists_every_metric_with_its_labels_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(splitplace_\w+)` \| (\w+) \| ([^|]*) \|", PAGE, flags=re.MULTILINE)
    known: list[tuple[str, str, str]] = [
        (family.shown, family.kind, ", ".join(family.label_names)) for family in FAMILIES
    ]
    known += [(name, "histogram", ", ".join(labels)) for name, (_, labels, _) in HISTOGRAMS.items()]
    known.append(("splitplace_connected", "gauge", ""))
    assert sorted((name, kind, labels.strip().replace("`", "")) for name, kind, labels in rows) == sorted(
        known
    )


def test_units_are_base_units() -> None:
    names = [family.name for family in FAMILIES] + list(HISTOGRAMS)
    assert not [name for name in names if re.search(r"_(ms|mb|megabytes|percent|total)\b", name)]
    assert tuple(sorted(SECONDS)) == SECONDS
