"""A real Prometheus scrapes a real system; every query of the board and every alert is asked."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from splitplace.commands.dashboard.exposition import HISTOGRAMS
from splitplace.commands.dashboard.families import FAMILIES
from splitplace.commands.processes.children import Processes
from tests.support.dashboards import Dashboard, free_port
from tests.support.waiting import PATIENCE_S, block_until

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARD = json.loads((DEPLOY / "grafana" / "splitplace.json").read_text(encoding="utf-8"))
RULES = DEPLOY / "prometheus" / "splitplace.rules.yml"
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
MAY_BE_EMPTY = ("temperature_celsius", "throttled", "refusals_total")
"""What a machine does not measure, and what did not happen."""
RATE = "sum(rate(splitplace_response_seconds_count[1m])) > 0"


class Prometheus:
    """A server that scrapes one dashboard."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        address = f"{self._url}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            said = json.load(answer)
        assert said["status"] == "success"
        return said["data"]

    def ask(self, query: str) -> list[Any]:
        """The samples of a query, as Grafana asks it."""
        plain = query.replace("$__rate_interval", "1m")
        return list(self.get("query", query=plain)["result"])

    def has(self, query: str) -> bool:
        try:
            return bool(self.ask(query))
        except OSError:
            return False


@pytest.fixture(scope="module")
def prometheus(dashboard: Dashboard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Debian's Prometheus with the configuration that we ship, but quicker, and another address."""
    program = shutil.which("prometheus")
    assert program, "no server: apt-get install prometheus"
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [dashboard.url.removeprefix("http://")]}]
    shutil.copy(RULES, folder)
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    with Processes(folder / "logs") as processes:
        processes.start(
            "prometheus",
            (
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ),
        )
        server = Prometheus(port)
        block_until(lambda: server.has('up{job="splitplace"} == 1'))
        # A series that appears with its first tasks has no rate until there are more.
        block_until(lambda: _answers(dashboard) and server.has(RATE))
        block_until(lambda: server.has("splitplace_sensor_late_ratio"))
        yield server


def _answers(dashboard: Dashboard) -> bool:
    return dashboard.ask().status == "answered"


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_board_has_an_answer(query: str, prometheus: Prometheus) -> None:
    if any(name in query for name in MAY_BE_EMPTY):
        assert prometheus.ask(query) is not None
    else:
        block_until(lambda: prometheus.has(query))


def test_rules_are_evaluated_and_a_healthy_system_fires_no_alert(prometheus: Prometheus) -> None:
    def rules() -> list[Any]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    block_until(lambda: all(rule["health"] == "ok" for rule in rules()))
    names = {
        rule["alert"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert names <= {rule["name"] for rule in rules()}
    firing = [alert for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"]
    assert firing == []


def test_names_in_queries_and_alerts_are_those_that_are_scraped() -> None:
    known = {family.shown for family in FAMILIES} | set(HISTOGRAMS) | {"splitplace_connected"}
    text = " ".join(QUERIES) + RULES.read_text(encoding="utf-8")
    used = {name for name in re.findall(r"\bsplitplace_\w+", text) if name != "splitplace_"}
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert plain <= known


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "splitplace.rules.yml"),
        ("test", "rules", "splitplace.rules.test.yml"),
    ],
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ("promtool", *arguments), cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_promtool_has_nothing_to_say_of_our_metrics(dashboard: Dashboard) -> None:
    with urllib.request.urlopen(f"{dashboard.url}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read()
    done = subprocess.run(("promtool", "check", "metrics"), input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
