"""The demo runs to its end with real processes, and leaves none behind however it ends."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.demo.course import READY_S
from splitplace.commands.demo.options import DemoError, DemoOptions
from splitplace.commands.demo.run import Demo
from splitplace.commands.processes.broker import available_kind, free_port, started_broker
from splitplace.commands.processes.cpu_shares import cpu_shares, find_hierarchy
from splitplace.commands.shared.client import connected
from splitplace.commands.shared.policy_option import policy_flags
from splitplace.commands.watch.recording import Log
from splitplace.errors import ExitCode
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.messages.topics import PLACER, SPLITTER
from splitplace.policies.pairs import PolicyPair
from splitplace.policies.placement import PLACEMENT_POLICIES
from splitplace.policies.splitting import SPLIT_POLICIES
from splitplace.services.placer.settings import PlacerSettings
from splitplace.services.splitter.settings import SplitterSettings
from splitplace.storage.model_store import ModelStore
from tests.support.commands import exit_code
from tests.support.settings import settings_from_flags
from tests.support.tiny_application import build_tiny_application, tiny_images
from tests.support.waiting import block_until

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
PROCESSES = 1 + 1 + 6
"""Broker, the services' process and nodes; a sensor comes on top."""
END_S = 300.0
"""Ends tests that hang; what a busy machine needs at worst."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    build_tiny_application(root, milliseconds_per_image=0.3)
    images, labels = tiny_images(100)
    np.savez(root / "tiny" / "samples.npz", images=images[:, 0], labels=labels)
    return root


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores SIGINT, tests and their children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(store: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "splitplace.commands.main", "demo", "--store", str(store), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SPLITPLACE_STATE_DIR": str(folder / "state")},
    )


Running = tuple[subprocess.Popen[str], list[psutil.Process]]
"""A demo and all its children."""


@pytest.fixture
def running(store: Path, tmp_path: Path) -> Iterator[Running]:
    """A demo that has just started its nodes."""
    process = start(store, tmp_path, "--tasks", "1000")
    try:
        demo = psutil.Process(process.pid)
        block_until(lambda: len(demo.children()) >= PROCESSES, READY_S)
        yield process, demo.children(recursive=True)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def working(running: Running) -> Running:
    """A demo in full swing."""
    process, _ = running
    demo = psutil.Process(process.pid)
    block_until(lambda: len(demo.children()) > PROCESSES, READY_S)  # the sensor starts last
    return process, demo.children(recursive=True)


def test_a_demo_ends_by_itself_with_a_full_summary(store: Path, tmp_path: Path) -> None:
    flags = ("--tasks", "12", "--seed", "3", "--log", "log.jsonl", "--summary", "figures.json")
    process = start(store, tmp_path, *flags, "--deadlines", "deadlines.json")
    output, errors = process.communicate(timeout=END_S)
    assert process.returncode == 0, output + errors
    summary: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    tasks = summary["tasks"]
    ends = [tasks[end] for end in ("answered", "refused", "invalid", "expired", "failed")]
    assert (tasks["sent"], sum(ends), tasks["lost"], tasks["answered_twice"]) == (12, 12, 0, 0)
    ended = [event for event in Log(tmp_path / "log.jsonl").events() if isinstance(event, TaskFinished)]
    in_full = [event for event in ended if event.in_full and not event.task.startswith("first-")]
    assert in_full
    known = {event.accuracy for event in in_full} - {None}  # bare pictures come without their labels
    assert known == {1.0}  # the tiny application is never wrong
    assert tasks["partial"] == tasks["answered"] - len(in_full)  # a machine that stood still for a moment
    assert summary["accuracy"] == 1.0 or tasks["partial"] > 0
    assert summary["deadline_hit_rate"] > 0
    assert sum(summary["decisions"].values()) > 0
    assert set(summary["decisions"]) >= {"whole", "layer", "semantic"}
    assert list(summary["by_application"]) == ["tiny"]
    assert [node["node"] for node in summary["nodes"]][::2] == ["fast-1", "medium-1", "slow-1"]
    scores = [node["score"] for node in summary["nodes"]]
    assert scores[0] > scores[4]
    assert min(scores) > 0
    assert sum(node["executed"] for node in summary["nodes"]) > 0
    assert summary["broker"]["kind"] == available_kind()
    assert summary["wall_s"] > 0
    assert "deadline hit rate" in output
    assert_tells_the_acts(output, summary)
    assert {path.name for path in tmp_path.iterdir()} == {
        "deadlines.json",
        "figures.json",
        "log.jsonl",
        "state",
    }
    assert list((tmp_path / "state" / "demo").iterdir()) == []


def assert_tells_the_acts(output: str, summary: dict[str, Any]) -> None:
    without = summary["without_splitting"]
    sent = without["tasks"]["sent"]
    ends = without["tasks"]
    assert (ends["refused"] + ends["expired"], ends["answered"]) == (sent, 0)
    assert ends["refused"] > 0
    largest = summary["nodes"][0]["memory_budget_bytes"]
    assert without["needs_bytes"] > without["largest_node_bytes"] == largest
    assert sent == sum(group["tasks"] for group in summary["by_deadline"])
    assert summary["best_single_node"]["node"].startswith("fast")
    killed = summary["node_killed"]
    assert killed is None or killed["retried"] <= killed["lost"]
    parts = ("Act 1: a network that no node", f"of {sent} were refused", "Act 2", "Act 3", "└▶")
    assert [part for part in parts if part not in output] == []
    assert "\x1b" not in output


def test_splitter_and_placer_understand_the_flags_of_every_pair() -> None:
    for split in SPLIT_POLICIES:
        for placement in PLACEMENT_POLICIES:
            flags = policy_flags(PolicyPair(split, placement))
            splitter = settings_from_flags(SplitterSettings, flags[SPLITTER])
            placer = settings_from_flags(PlacerSettings, flags[PLACER])
            assert (splitter.policy, placer.placement) == (split, placement)


@pytest.mark.parametrize("command", ["demo", "up"])
def test_an_unknown_pair_of_policies_is_a_usage_error(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(command, "--policy", "mab+best") == 2
    assert "no placement policy 'best'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_signal_ends_a_demo_in_full_swing(working: Running) -> None:
    assert_ends_in_an_orderly_way(working, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_demo_that_still_starts(running: Running, number: signal.Signals) -> None:
    assert_ends_in_an_orderly_way(running, number)


def assert_ends_in_an_orderly_way(demo: Running, number: signal.Signals) -> None:
    process, children = demo
    process.send_signal(number)
    _, errors = process.communicate(timeout=END_S)
    assert (process.returncode, "stopped" in errors) == (1, True), errors
    _, alive = psutil.wait_procs(children, timeout=1)
    assert alive == []
    assert groups_of(process.pid) == []


def test_a_demo_that_is_killed_leaves_no_process_behind(
    running: Running,
) -> None:
    process, children = running
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=END_S)
    assert alive == []
    with cpu_shares():
        pass  # the next user of CPU shares removes what the kill has left in the kernel
    assert groups_of(process.pid) == []


def test_a_demo_fails_when_a_process_dies(
    running: Running,
) -> None:
    process, children = running
    victim = next(child for child in children if child.cmdline()[2:4] == ["splitplace", "services"])
    victim.kill()
    _, errors = process.communicate(timeout=END_S)
    assert (process.returncode, "services ended with signal 9" in errors) == (1, True), errors
    _, alive = psutil.wait_procs(children, timeout=1)
    assert alive == []


@dataclass(frozen=True, slots=True)
class Ended:
    """A demo that has run to its end."""

    folder: Path
    output: str
    errors: str

    @property
    def summary(self) -> dict[str, Any]:
        """Its figures."""
        figures: dict[str, Any] = json.loads((self.folder / "figures.json").read_text())
        return figures


@pytest.fixture(scope="module")
def shared(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ended, Ended, list[str]]]:
    """Two demos on one broker; then what is retained.

    The first has other policies and deadlines, and its services are processes of their own.
    """
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    (folders[0] / "deadlines.json").write_text('{"tiny": {"ms": 60.0, "ms_per_image": 5.0}}')
    other = ("--policy", "mab+daso", "--log", "log.jsonl", "--deadlines", "deadlines.json", "--json")
    with started_broker(tmp_path_factory.mktemp("broker")) as broker:
        flags = ("--broker", broker.url, "--summary", "figures.json")
        processes = [
            start(store, folders[0], "--tasks", "10", "--processes", *flags, *other),
            start(store, folders[1], "--tasks", "6", *flags),
        ]
        ended = []
        for process, folder in zip(processes, folders, strict=True):
            output, errors = process.communicate(timeout=END_S)
            assert process.returncode == 0, output + errors
            ended.append(Ended(folder, output, errors))
        yield ended[0], ended[1], retained_topics(broker.url)


def test_a_demo_runs_with_the_policies_that_were_asked_for_and_logs_their_decisions(
    shared: tuple[Ended, Ended, list[str]],
) -> None:
    demo, _, _ = shared
    assert json.loads(demo.output) == demo.summary
    assert "Act 3" in demo.errors
    events = list(Log(demo.folder / "log.jsonl").events())
    decisions = [event for event in events if isinstance(event, TaskDecided)]
    assert {decided.policy for decided in decisions} == {"mab"}
    assert all(decided.alternatives for decided in decisions)
    ends = {event.task for event in events if isinstance(event, TaskFinished)}
    deadlines_ms = [
        event.deadline_ms
        for event in events
        if isinstance(event, TaskFinished) and not event.task.startswith("first-")
    ]
    assert all(0.7 * 65 <= deadline_ms <= 26 * (60 + 5 * 128) for deadline_ms in deadlines_ms)
    assert ends >= {decided.task for decided in decisions} != set()
    assert demo.summary["policy"] == "mab+daso"


def test_demos_on_a_shared_broker_do_not_meet_and_leave_nothing_retained(
    shared: tuple[Ended, Ended, list[str]],
) -> None:
    one, two, retained = shared
    sent = [(demo.summary["tasks"]["sent"], demo.summary["broker"]["kind"]) for demo in (one, two)]
    assert sent == [(10, "given"), (6, "given")]
    assert [demo.summary["processes"] for demo in (one, two)] == [True, False]
    assert retained == []


def test_without_applications_there_is_no_demo(tmp_path: Path) -> None:
    options = DemoOptions(
        tasks=1, nodes=6, seed=0, broker=None, store=ModelStore(tmp_path), folder=tmp_path / "run"
    )
    with pytest.raises(DemoError, match="no application with samples"):
        Demo(options)


def test_an_unreachable_broker_is_a_clear_error(store: Path, tmp_path: Path) -> None:
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    process = start(store, tmp_path, "--broker", nobody)
    _, errors = process.communicate(timeout=END_S)
    assert (process.returncode, nobody in errors, "Traceback" in errors) == (1, True, False), errors


def groups_of(pid: int) -> list[Path]:
    """Control groups that a demo has made and not removed."""
    place = find_hierarchy()
    return [] if place is None else list(place.folder.glob(f"splitplace-{pid}*"))


def retained_topics(url: str) -> list[str]:
    found: list[str] = []

    async def look() -> None:
        async with connected(Settings(broker=url), "test") as client, asyncio.timeout(1.0):
            await client.subscribe("splitplace/#", qos=1)
            async for message in client.messages:
                found.append(message.topic.value)  # noqa: PERF401 - kept when the time is over

    with contextlib.suppress(TimeoutError):
        asyncio.run(look())
    return found


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--arms", "zzz"), "tiny has no variant among zzz, only whole"),
        (("--arms", ","), "--arms: no arms in"),
        (("--summary", "nowhere/figures.json"), "--summary: nowhere is not a folder"),
        (("--deadlines", "nowhere/deadlines.json"), "--deadlines: nowhere is not a folder"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_at_the_beginning(
    store: Path, flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert exit_code("demo", "--store", store, "--state-dir", state, *flags) == ExitCode.USAGE
    assert reason in capsys.readouterr().err
    assert not state.exists()
