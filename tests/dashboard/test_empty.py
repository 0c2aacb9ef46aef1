"""Every page before anything is there: a broker, and a dashboard that was started first."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from splitplace.commands.processes.broker import started_broker
from tests.support.dashboards import Dashboard, running_dashboard
from tests.support.waiting import PATIENCE_S, block_until

pytestmark = pytest.mark.system

PATIENT_MS = PATIENCE_S * 1000


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard that sees no service, no node and no task."""
    folder = tmp_path_factory.mktemp("empty")
    with (
        started_broker(folder / "broker", kind="embedded") as broker,
        running_dashboard(broker.url, folder) as dashboard,
    ):
        block_until(dashboard.answers)
        yield dashboard


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("now", "run splitplace up"),
        ("now", "No task ended in the last hour"),
        ("cluster", "No node is known. Start one: splitplace node"),
        ("tasks", "No task yet. Send one on the page Try."),
        ("try", "No network is announced. Start the splitter"),
        ("decisions", "Nothing decided yet"),
        ("whatif", "The tasks of the last hour again"),
        ("networks", "No network is announced. Start the splitter"),
        ("sensors", "No sensor has sent a task"),
    ],
)
def test_a_page_with_nothing_to_show_says_what_to_do(
    dashboard: Dashboard, page: Page, name: str, said: str
) -> None:
    page.goto(f"{dashboard.url}/#/{name}")
    expect(page.locator("main")).to_contain_text(said, timeout=PATIENT_MS)
    expect(page.locator("#light")).to_have_class(re.compile("broken"), timeout=PATIENT_MS)
    assert Axe().run(page).response["violations"] == []


def test_what_if_without_tasks_says_how_many_it_needs(dashboard: Dashboard, page: Page) -> None:
    page.goto(f"{dashboard.url}/#/whatif")
    page.get_by_role("button", name="Simulate").click()
    expect(page.locator("#result")).to_contain_text("no answer:", timeout=PATIENT_MS)
