"""`status`, `doctor`, `watch`, `submit` and the health check in a secured system, each as several users."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitplace.bus.settings import Settings
from splitplace.commands.camera.frames import Chooser, Waiting
from splitplace.commands.camera.sources import Folder
from splitplace.commands.camera.watching import Camera, watch
from splitplace.errors import NotAllowedError
from tests.support.dashboards import Dashboard, running_dashboard
from tests.support.secured import Shown, secure, splitplace
from tests.support.secured_system import NODES, SecuredSystem, secured_system
from tests.support.tiny_application import tiny_images
from tests.support.waiting import block_until, until

pytestmark = [pytest.mark.mosquitto, pytest.mark.system]

HEALTH_CHECK = Path(__file__).parents[2] / "deploy" / "healthcheck.py"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredSystem]:
    with secured_system(tmp_path_factory.mktemp("secured")) as running:
        yield running


def run(system: SecuredSystem, user: str, *arguments: str) -> Shown:
    file = system.secured.folder.users.file(user)
    return splitplace(*arguments, "--credentials", str(file))


@pytest.mark.parametrize("user", ["operator", "wall"])
def test_status_shows_services_and_nodes_to_those_who_may_see_them(system: SecuredSystem, user: str) -> None:
    shown = run(system, user, "status", "--json")
    assert shown.code == 0, shown.errors
    report = json.loads(shown.out)
    assert all(service["online"] for service in report["services"])
    assert {node["name"] for node in report["nodes"] if node["online"]} == set(NODES)
    assert report["unreadable"] == []


def test_status_calls_nobody_offline_whom_this_user_may_not_see(system: SecuredSystem) -> None:
    shown = run(system, "camera", "status")
    assert shown.code == 1
    assert "this user (camera) may not read" in shown.errors
    assert "offline" not in shown.out
    assert "splitplace up" not in shown.errors


def test_the_doctor_finds_nothing_wrong(system: SecuredSystem) -> None:
    shown = run(system, "operator", "doctor", "--json")
    levels = {check["name"]: check["level"] for check in json.loads(shown.out)["checks"]}
    assert [name for name, level in levels.items() if level == "fail"] == [], shown.out
    assert {levels[name] for name in ("certificate", "authority", "users", "largest task", "services")} == {
        "ok"
    }


def test_the_doctor_says_what_its_user_may_not_do_and_gives_no_wrong_advice(system: SecuredSystem) -> None:
    shown = run(system, "camera", "doctor", "--json")
    checks = json.loads(shown.out)["checks"]
    assert not any("packet or payload limit" in check["remedy"] for check in checks)
    assert not any("max_queued" in check["remedy"] for check in checks)
    findings = " ".join(check["finding"] for check in checks if check["level"] == "warn")
    assert "this user may not read" in findings
    assert "this user (camera) may not read" in findings
    assert shown.code == 0


def test_a_sensor_submits_with_its_credentials(system: SecuredSystem, tmp_path: Path) -> None:
    images, labels = tiny_images(3, seed=1)
    np.save(tmp_path / "batch.npy", images)
    task = ("submit", str(tmp_path / "batch.npy"), "--app", "tiny", "--deadline", "30s", "--json")
    shown = run(system, "camera", *task)
    assert shown.code == 0, shown.errors
    answer = json.loads(shown.out)
    assert answer["client"] == "camera"
    assert [found["index"] for found in answer["predictions"]] == labels.tolist()


def test_who_may_not_send_tasks_is_told_so_at_once(system: SecuredSystem, tmp_path: Path) -> None:
    np.save(tmp_path / "batch.npy", tiny_images(1, seed=1)[0])
    shown = run(system, "wall", "submit", str(tmp_path / "batch.npy"), "--app", "tiny")
    assert shown.code == 5
    assert "this user (wall) may not" in shown.errors


def pictures(folder: Path) -> str:
    """A folder with a picture in it."""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "black.png")
    return str(folder)


@pytest.mark.parametrize("user", ["camera", "operator"])
def test_a_camera_sends_with_the_credentials_of_its_user(
    system: SecuredSystem, tmp_path: Path, user: str
) -> None:
    shown = run(system, user, "camera", pictures(tmp_path), "--app", "tiny", "--deadline", "30s", "--json")
    assert shown.code == 0, shown.errors
    (line,) = shown.out.splitlines()
    answer = json.loads(line)["answer"]
    assert (answer["client"], answer["status"]) == (user, "answered")


@pytest.mark.parametrize("user", ["wall", "n1", "gateway"])
def test_who_may_not_send_tasks_makes_no_camera_and_is_told_so(
    system: SecuredSystem, tmp_path: Path, user: str
) -> None:
    shown = run(system, user, "camera", pictures(tmp_path), "--app", "tiny")
    assert shown.code == 5
    assert f"this user ({user}) may not" in shown.errors


class Slow(Folder):
    """A folder whose last picture is long in coming."""

    is_endless = False


@pytest.mark.parametrize("is_endless", [True, False])
async def test_a_camera_whose_user_is_removed_says_that_it_was_refused(
    system: SecuredSystem, tmp_path: Path, *, is_endless: bool
) -> None:
    assert (await asyncio.to_thread(secure, system.secured, "add", "sensor", "leaving")).code == 0
    (tmp_path / "pictures").mkdir()
    folder = Path(pictures(tmp_path / "pictures"))
    source = (Folder if is_endless else Slow)(folder, follows=True)
    camera = Camera("door", "tiny", 30_000.0, Chooser(0.0, on_motion=False), source)
    seen: list[str] = []
    file = shutil.copy(system.secured.folder.users.file("leaving"), tmp_path)  # as on another device
    settings = Settings(credentials=Path(file))
    task = asyncio.create_task(watch(settings, camera, lambda frame, *_: seen.append(frame.name), Waiting()))
    await until(lambda: bool(seen) or task.done())
    assert (await asyncio.to_thread(secure, system.secured, "remove", "leaving")).code == 0
    with pytest.raises(NotAllowedError, match=r"(?i)not authorized.*--credentials"):
        await task
    shutil.rmtree(folder)  # ends the thread


def test_a_dashboard_watches_and_a_sensor_does_not(system: SecuredSystem) -> None:
    shown = run(system, "wall", "watch", "--json", "--seconds", "4")
    assert shown.code == 0
    assert any(json.loads(line)["topic"] == "cluster/state" for line in shown.out.splitlines())
    shown = run(system, "camera", "watch", "--json", "--seconds", "4")
    assert (shown.code, "this user (camera) may not read" in shown.errors) == (5, True)


def now_as_seen(system: SecuredSystem, user: str, folder: Path, wanted: str) -> None:
    """Wait until the page Now of a user's dashboard holds a text."""
    file = system.secured.folder.users.file(user)
    with running_dashboard(None, folder, "--credentials", str(file)) as dashboard:
        token_file = folder / "state" / "dashboard.token"

        def holds() -> bool:
            return token_file.exists() and wanted in _now(dashboard, token_file.read_text().strip())

        block_until(holds)
        assert dashboard.get("/api/now")[0] == 401


def _now(dashboard: Dashboard, token: str) -> str:
    try:
        return json.dumps(dashboard.get("/api/now", {"authorization": f"Bearer {token}"})[1])
    except OSError:
        return ""  # it is starting


@pytest.mark.parametrize("user", ["operator", "wall"])
def test_a_dashboard_shows_a_secured_system_to_those_with_its_token(
    system: SecuredSystem, tmp_path: Path, user: str
) -> None:
    now_as_seen(system, user, tmp_path, f'"online_nodes": {len(NODES)}')


def test_a_sensor_makes_no_dashboard_and_is_told_so(system: SecuredSystem, tmp_path: Path) -> None:
    now_as_seen(system, "camera", tmp_path, "this user (camera) may not read")


@pytest.mark.parametrize(("user", "part"), [("gateway", "service/gateway"), ("n1", "node/n1")])
def test_the_health_check_works_with_the_parts_own_credentials(
    system: SecuredSystem, user: str, part: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SPLITPLACE_BROKER"}
    environment |= {"SPLITPLACE_CREDENTIALS": str(system.secured.folder.users.file(user))}
    check = [sys.executable, str(HEALTH_CHECK), part]
    assert subprocess.run(check, env=environment, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("user", "command", "code"),
    [
        ("n1", ("status",), 1),
        ("n1", ("doctor",), 0),
        ("n1", ("watch", "--seconds", "2"), 5),
        ("n1", ("submit", "batch.npy", "--app", "tiny"), 5),
        ("gateway", ("status",), 1),
        ("gateway", ("submit", "batch.npy", "--app", "tiny"), 5),
        ("operator", ("watch", "--json", "--seconds", "4"), 0),
        ("operator", ("submit", "batch.npy", "--app", "tiny", "--deadline", "30s"), 0),
    ],
)
def test_every_command_as_every_user_works_or_says_what_that_user_may_not_do(
    system: SecuredSystem, tmp_path: Path, user: str, command: tuple[str, ...], code: int
) -> None:
    np.save(tmp_path / "batch.npy", tiny_images(1, seed=1)[0])
    words = [str(tmp_path / word) if word.endswith(".npy") else word for word in command]
    shown = run(system, user, *words)
    said = shown.out + shown.errors
    assert shown.code == code, said
    assert "Traceback" not in said
    if user != "operator":
        assert "this user" in said
        assert "may not" in said
        assert "splitplace up" not in shown.errors
