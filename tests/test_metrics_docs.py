"""docs/metrics.md lists every metric, and nothing else."""

import inspect
import re
from pathlib import Path

import pytest

from splitplace.edge_node.vitals import RASPBERRY_PI_WATTS
from splitplace.messages import metrics
from splitplace.messages.base import Message
from splitplace.messages.topics import all_topics

TEXT = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
MODELS = {
    name: model
    for name, model in inspect.getmembers(metrics, inspect.isclass)
    if issubclass(model, Message) and model is not Message
}


def rows(section: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    body = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    text = next(part for part in body if part.startswith(f"{section}\n"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_a_message_stands_in_its_table_once_with_unit_and_meaning(model: str) -> None:
    table = rows(model)
    listed = [cells[0].strip("`") for cells in table]
    sent = [*MODELS[model].model_fields, *MODELS[model].model_computed_fields]
    assert listed == [name for name in sent if name != "version"]
    assert all(unit and meaning for _, unit, meaning in table)


def test_sections_describe_only_messages_that_exist() -> None:
    sections = set(re.findall(r"^## ([A-Z]\w*[A-Z]\w+|Availability)$", TEXT, flags=re.MULTILINE))
    assert sections == set(MODELS)


def test_every_metrics_topic_stands_in_the_table_of_topics_as_it_is() -> None:
    listed = {cells[0].strip("`"): (cells[1], cells[2], cells[3] == "yes") for cells in rows("Topics")}
    known = {
        topic.pattern: (
            topic.message.__name__,
            topic.publishers[0] if len(topic.publishers) == 1 else "each service",
            topic.retain,
        )
        for topic in all_topics()
        if topic.pattern.startswith(("metrics/", "latest/", "availability/"))
    }
    assert listed == known


def test_the_power_curve_is_the_one_that_nodes_use() -> None:
    ((_, *watts),) = rows("The energy estimate")
    assert tuple(map(float, watts)) == RASPBERRY_PI_WATTS
