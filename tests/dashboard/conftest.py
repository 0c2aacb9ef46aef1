"""A running system, its dashboard, and a real browser that looks at it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browsers import running_browser
from tests.support.dashboards import Dashboard, calibrated, running_dashboard
from tests.support.waiting import PATIENCE_S, block_until
from tests.support.whole_system import Setup, System, running_system


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Five services and three nodes."""
    setup = Setup(node_options=(), together=True)
    with running_system(tmp_path_factory.mktemp("system"), "embedded", setup) as system:
        yield system


@pytest.fixture(scope="module")
def dashboard(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard that sees all of it."""
    folder = tmp_path_factory.mktemp("dashboard")
    calibrated(folder / "state", slowest=0.01, fastest=1e6)  # whatever the speed of this machine
    with running_dashboard(system.broker.url, folder, "--pictures") as dashboard:
        dashboard.nodes = system.nodes
        block_until(dashboard.answers)
        yield dashboard


@pytest.fixture(scope="module")
def browser(dashboard: Dashboard) -> Iterator[Browser]:
    """A browser, started once the dashboard answers."""
    assert dashboard.url
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose errors, and whatever its policy blocks, fail the test."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security" in said.text else None)
    yield page
    page.close()
    assert errors == []
