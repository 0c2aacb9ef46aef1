"""`splitplace up` runs a dashboard too, where it can."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.dashboard import command, start
from splitplace.commands.dashboard.exposition import Exposition
from splitplace.commands.dashboard.guard import Access
from splitplace.commands.dashboard.history import open_history
from splitplace.commands.dashboard.start import start_dashboard
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.dashboard.web import Source
from splitplace.commands.processes.children import Processes
from splitplace.errors import ExitCode, SplitPlaceError
from tests.support.brokers import running_broker
from tests.support.dashboards import Dashboard, free_port, running_dashboard
from tests.support.secured import splitplace
from tests.support.waiting import PATIENCE_S, block_until


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "logs") as processes:
        yield processes


def test_none_is_started_where_none_is_wanted(processes: Processes) -> None:
    assert start_dashboard(processes, Settings(), (), wanted=False) == "no dashboard, as was asked"
    assert processes.children == {}


def test_a_port_in_use_is_no_reason_to_fail(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind((start.HOST, 0))
        other.listen()
        monkeypatch.setattr(start, "DEFAULT_PORT", other.getsockname()[1])
        assert "is in use" in start_dashboard(processes, Settings(), (), wanted=True)
    assert processes.children == {}


def test_it_is_started_otherwise(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "DEFAULT_PORT", free_port())
    assert "http://127.0.0.1:" in start_dashboard(processes, Settings(), (), wanted=True)
    assert list(processes.children) == ["dashboard"]


async def test_it_ends_with_an_error_when_it_follows_the_system_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(command, "follow", follow)
    with contextlib.closing(open_history(tmp_path / "history.sqlite3")) as history:
        state, lock = DashboardState(started_s=0.0), asyncio.Lock()
        source = Source(Settings(), state, history, lock, "1.2.3", Exposition(time.time))
        with pytest.raises(RuntimeError, match="a fault"):
            async with asyncio.timeout(PATIENCE_S):
                await command._serve(source, Access(), command._listening(start.HOST, free_port()))


def test_a_port_in_use_is_told_before_an_address_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind((start.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SplitPlaceError, match=f"{port}: Address already in use .*--port"):
            command.command(port=port, broker="mqtt://127.0.0.1:1", state_dir=tmp_path)
    assert capsys.readouterr().out == ""


def answers(dashboard: Dashboard) -> bool:
    with contextlib.suppress(OSError):
        return bool(dashboard.get("/api/now")[0])
    return False


def test_with_a_token_only_those_who_have_it_come_in(tmp_path: Path) -> None:
    with (
        running_broker("embedded", tmp_path / "broker") as broker,
        running_dashboard(broker.url, tmp_path, "--token") as dashboard,
    ):
        block_until(lambda: answers(dashboard))
        token_file = tmp_path / "state" / "dashboard.token"
        token = token_file.read_text().strip()
        assert token_file.stat().st_mode & 0o077 == 0
        assert dashboard.get("/api/now")[0] == 401
        assert dashboard.get("/static/main.js")[0] == 401
        assert dashboard.get("/api/now", {"authorization": "Bearer wrong"})[0] == 401
        assert dashboard.get("/api/now", {"authorization": f"Bearer {token}"})[0] == 200
        assert dashboard.get("/api/now", {"cookie": f"splitplace-token={token}"})[0] == 200
        log = "".join(dashboard.processes.children["dashboard"].last_lines())
        assert str(token_file) in log
        assert token not in log


def test_traces_need_a_whole_address() -> None:
    done = splitplace("dashboard", "--traces", "localhost:4318")
    assert done.code == ExitCode.USAGE
    assert "--traces localhost:4318: give a whole address" in done.errors
