"""Every page in a real browser, with a running system."""

import asyncio
import os
import re
import signal
import time
from typing import Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.commands.dashboard.what_if import FEWEST_TASKS
from splitplace.messages.names import task_key
from splitplace.messages.topics import JOB_FINISHED
from tests.support.dashboards import Dashboard, elsewhere, picture
from tests.support.messages import finished
from tests.support.waiting import PATIENCE_S
from tests.support.whole_system import System

pytestmark = pytest.mark.system

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
HOSTILE_KEY = task_key("<b>bold</b>", "1", "0123abcd")
PATIENT_MS = PATIENCE_S * 1000


def test_a_new_system_is_well_and_nothing_is_to_do(dashboard: Dashboard, page: Page) -> None:
    page.goto(dashboard.url)
    expect(page.locator("#state")).to_have_text("well", timeout=PATIENT_MS)
    expect(page.locator("#todo")).to_have_text("Nothing to do.")


def test_a_picture_that_is_tried_is_answered(dashboard: Dashboard, page: Page) -> None:
    page.goto(f"{dashboard.url}/#/try")
    page.locator("#picture").set_input_files({"name": "p.png", "mimeType": "image/png", "buffer": picture()})
    page.locator("#deadline").fill("30000")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#label")).to_contain_text("bottom right", timeout=PATIENT_MS)


def test_a_picture_that_is_tried_is_planned_for_other_deadlines(dashboard: Dashboard, page: Page) -> None:
    page.goto(f"{dashboard.url}/#/try")
    page.locator("#picture").set_input_files({"name": "p.png", "mimeType": "image/png", "buffer": picture()})
    page.locator("#deadline").fill("20000")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#others tbody tr")).to_have_count(5, timeout=PATIENT_MS)
    expect(page.locator("#others")).to_contain_text("100000 ms")
    expect(page.locator("#others tbody tr").last).to_contain_text("on n")  # where it would run
    page.get_by_role("link", name="Why was it run this way?").click()
    expect(page.locator("#why")).to_contain_text("before its deadline", timeout=PATIENT_MS)


def test_a_task_is_found_by_the_name_that_its_sensor_knows(dashboard: Dashboard, page: Page) -> None:
    answer = dashboard.ask()
    page.goto(f"{dashboard.url}/#/tasks/{answer.client}.{answer.task}")
    expect(page.locator("#why")).to_contain_text("before its deadline", timeout=PATIENT_MS)
    assert dashboard.get("/api/tasks/nobody.nothing")[0] == 404


def test_what_if_answers_in_a_sentence(dashboard: Dashboard, page: Page) -> None:
    for _ in range(FEWEST_TASKS):
        dashboard.ask()
    page.goto(f"{dashboard.url}/#/whatif")
    page.locator("#add").select_option("pi4")
    page.get_by_role("button", name="Simulate").click()
    expect(page.locator("#verdict")).to_contain_text("with the change", timeout=PATIENT_MS)
    expect(page.get_by_role("region", name="Result")).to_contain_text("1 x pi4")


def test_what_if_says_why_it_has_no_answer(dashboard: Dashboard, page: Page) -> None:
    page.route("**/api/cluster", lambda route: route.fulfill(json=[{"node": "gone", "online": True}]))
    for _ in range(FEWEST_TASKS):
        dashboard.ask()
    page.goto(f"{dashboard.url}/#/whatif")
    page.locator("#remove").select_option("gone")
    page.get_by_role("button", name="Simulate").click()
    expect(page.locator("#result")).to_contain_text("no answer: there is no node gone", timeout=PATIENT_MS)


def test_a_sensor_has_its_last_picture_and_what_was_found(dashboard: Dashboard, page: Page) -> None:
    answer = dashboard.ask()
    page.goto(f"{dashboard.url}/#/sensors")
    row = page.locator("tr", has_text=answer.client)
    expect(row).to_contain_text("bottom right", timeout=PATIENT_MS)
    expect(row.locator("img")).to_have_js_property("complete", value=True)
    assert int(row.locator("img").evaluate("image => image.naturalWidth")) > 0
    page.goto(f"{dashboard.url}/#/tasks/{answer.client}.{answer.task}")
    expect(page.locator("img.found")).to_be_visible(timeout=PATIENT_MS)


def test_a_task_opens_and_says_why_with_its_timeline(dashboard: Dashboard, page: Page) -> None:
    dashboard.ask()
    page.goto(f"{dashboard.url}/#/tasks")
    page.locator("tbody a").first.click()
    expect(page.locator("#why")).to_contain_text("before its deadline", timeout=PATIENT_MS)
    expect(page.locator("#timeline .compute").first).to_be_attached()
    expect(page.locator("#timeline .deadline")).to_be_attached()
    expect(page.get_by_role("region", name="Alternatives").first).to_contain_text("whole")
    page.reload()  # its address is a link to it
    expect(page.locator("#why")).to_contain_text("before its deadline", timeout=PATIENT_MS)


def test_the_path_of_a_task_is_drawn_through_the_cluster(dashboard: Dashboard, page: Page) -> None:
    answer = dashboard.ask()
    page.goto(f"{dashboard.url}/#/cluster")
    expect(page.locator("#nodes article")).to_have_count(len(dashboard.nodes), timeout=PATIENT_MS)
    expect(page.locator("#map .node.part")).to_have_count(len(set(answer.nodes)), timeout=PATIENT_MS)
    expect(page.locator("#map .path")).to_have_attribute("d", re.compile("^M.*L"))


@pytest.mark.parametrize(
    ("name", "wanted"), [("networks", "layer"), ("sensors", "submit-"), ("decisions", "100.0 %")]
)
def test_simple_pages_show_their_table(dashboard: Dashboard, page: Page, name: str, wanted: str) -> None:
    dashboard.ask()
    page.goto(f"{dashboard.url}/#/{name}")
    expect(page.locator("main table").first).to_contain_text(wanted, timeout=PATIENT_MS)


def test_a_page_is_reached_by_the_keyboard_alone(dashboard: Dashboard, page: Page) -> None:
    page.goto(dashboard.url)
    expect(page.locator("#state")).to_be_visible(timeout=PATIENT_MS)
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Tasks")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(
    dashboard: Dashboard, page: Page, scheme: Literal["light", "dark"]
) -> None:
    dashboard.ask()
    task = dashboard.get("/api/tasks?outcome=on%20time")[1][0]["task"]
    page.emulate_media(color_scheme=scheme)
    found = {}
    for name in (
        "now",
        "cluster",
        "tasks",
        f"tasks/{task}",
        "try",
        "decisions",
        "whatif",
        "networks",
        "sensors",
    ):
        page.goto(f"{dashboard.url}/#/{name}")
        page.reload()
        expect(page.locator("#light")).to_have_class(re.compile("well|strained"), timeout=PATIENT_MS)
        expect(page.locator("main > *").nth(1)).to_be_attached(timeout=PATIENT_MS)
        page.wait_for_load_state()
        for violation in Axe().run(page).response["violations"]:
            found[name, violation["id"]] = [each["html"] for each in violation["nodes"][:3]]
    assert found == {}


def test_a_hostile_reason_never_becomes_markup(dashboard: Dashboard, page: Page) -> None:
    async def send() -> None:
        bus = Bus(Settings(broker=dashboard.broker), "hostile")
        async with bus:
            await bus.connected()
            end = finished(HOSTILE_KEY, application="tiny", status="failed", on_time=False, reason=HOSTILE)
            await bus.publish(JOB_FINISHED, end)

    elsewhere(lambda: asyncio.run(send()))
    page.goto(f"{dashboard.url}/#/sensors")
    expect(page.locator("main")).to_contain_text("<b>bold</b>", timeout=PATIENT_MS)
    page.goto(f"{dashboard.url}/#/tasks/{quote(HOSTILE_KEY, safe='')}")
    expect(page.locator("main")).to_contain_text("<img src=x", timeout=PATIENT_MS)
    assert page.locator("main img, main script, main b").count() == 0
    expect(page).to_have_title(re.compile("^Tasks"))


def test_what_the_browser_may_load_is_only_from_here(dashboard: Dashboard, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(dashboard.url)
    expect(page.locator("#state")).to_be_visible(timeout=PATIENT_MS)
    assert answer is not None
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert asked
    assert [url for url in asked if not url.startswith(dashboard.url)] == []


def test_a_stranger_is_refused(dashboard: Dashboard) -> None:
    code, said = dashboard.get("/api/now", {"host": "evil.example"})
    assert (code, list(said)) == (403, ["error"])
    assert dashboard.get("/api/what-if", {"sec-fetch-site": "cross-site"})[0] == 403
    assert dashboard.get("/api/now", {"sec-fetch-site": "same-origin"})[0] == 200


def test_openapi_names_every_path_that_answers(dashboard: Dashboard) -> None:
    for _ in range(FEWEST_TASKS):
        answer = dashboard.ask()
    code, document = dashboard.get("/api/openapi.json")
    assert code == 200
    task = f"{answer.client}.{answer.task}"
    answered = {
        path: dashboard.get(path.replace("{task}", task) + ("?policy=rule" if "replay" in path else ""))[0]
        for path in document["paths"]
        if not path.endswith(("/events", "/try", "/picture"))  # no GET that answers with JSON and ends
    }
    assert len(answered) == 12
    assert set(answered.values()) == {200}


def test_a_node_that_is_killed_is_marked_while_the_page_is_open(
    system: System, dashboard: Dashboard, page: Page
) -> None:
    page.goto(f"{dashboard.url}/#/cluster")
    expect(page.locator("#nodes article")).to_have_count(len(dashboard.nodes), timeout=PATIENT_MS)
    system.kill("n1")
    expect(page.locator("article[data-node=n1]")).to_contain_text("gone for", timeout=PATIENT_MS)
    expect(page.locator("#light")).to_have_text("strained", timeout=PATIENT_MS)
    page.goto(f"{dashboard.url}/#/now")
    expect(page.locator("#todo")).to_contain_text("offline: n1", timeout=PATIENT_MS)


def test_the_page_finds_a_dashboard_that_was_started_again(dashboard: Dashboard, page: Page) -> None:
    task = dashboard.ask()
    code, rows = dashboard.get("/api/tasks")
    assert code == 200
    page.goto(dashboard.url)
    expect(page.locator("#state")).to_be_visible(timeout=PATIENT_MS)
    child = dashboard.processes.children["dashboard"]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)
    child.end(deadline=time.monotonic() + PATIENCE_S)
    expect(page.locator("#light")).to_contain_text("no connection", timeout=PATIENT_MS)
    child.start()
    expect(page.locator("#light")).to_have_text("strained", timeout=PATIENT_MS)
    assert dashboard.get(f"/api/tasks/{rows[0]['task']}")[0] == 200, task  # from the history
