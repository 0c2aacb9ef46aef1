"""From the version before: its unfinished task is answered, what it learnt counts, and there is a way back.

The folder `version-0.2.0` holds what the gateway and the splitter of version 0.2.0 wrote: a task that was
answered, one that waited for a node when the gateway ended, and the bandit's state.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from splitplace.commands.processes.broker import Broker
from splitplace.commands.processes.children import Processes
from splitplace.messages.topics import ANSWER, METRICS_SERVICE
from tests.support.brokers import running_broker
from tests.support.observer import Observer
from tests.support.waiting import until
from tests.support.whole_system import START_S

pytestmark = pytest.mark.system

EARLIER = Path(__file__).with_name("version-0.2.0")
UNFINISHED = "7575b23cdf611cd9"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder as version 0.2.0 left it a minute ago."""
    folder = tmp_path / "state"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "gateway.sqlite3")) as journal:
        journal.executescript((EARLIER / "journal.sql").read_text("utf-8"))
        journal.execute("UPDATE tasks SET accepted_unix_s = ?", (time.time() - 60,))
        journal.execute("UPDATE tasks SET finished_unix_s = ? WHERE delivered", (time.time() - 59,))
        journal.commit()
    (folder / "splitter.json").write_bytes((EARLIER / "splitter.json").read_bytes())
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker("mosquitto", tmp_path / "broker") as running:
        yield running


def splitplace(*arguments: str) -> str:
    words = (sys.executable, "-m", "splitplace", *arguments)
    variables = {name: each for name, each in os.environ.items() if name != "SPLITPLACE_STATE_DIR"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def journal_of(state: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(state / "gateway.sqlite3")) as journal:
        return list(journal.iterdump())


async def labels_of_the_unfinished_task(broker: Broker, processes: Processes, state: Path) -> list[str]:
    """Start all parts of this version, and wait for the answer."""
    observer = Observer(broker.url, METRICS_SERVICE, raw=[ANSWER])
    async with observer.bus:
        for name, words in {
            "services": ("services", "--policy", "mab+earliest-finish"),
            "node": ("node", "--node", "n1"),
        }.items():
            command = (sys.executable, "-m", "splitplace", *words, "--state-dir", str(state))
            processes.start(name, (*command, "--broker", broker.url))

        def answers() -> list[bytes]:
            payloads = observer.payloads(ANSWER)
            return [bytes(each.payload) for each in payloads if each.parameters["task"] == UNFINISHED]

        await until(lambda: bool(answers()), START_S)
    answer = msgpack.unpackb(answers()[0])
    assert answer["status"] == "answered", answer
    return [each["label"] for each in answer["predictions"]]


@pytest.mark.mosquitto
def test_an_upgrade_answers_what_waited_and_a_backup_leads_back(
    state: Path, broker: Broker, tmp_path: Path
) -> None:
    before = journal_of(state)
    splitplace("backup", str(tmp_path / "copy.tar.gz"), "--state-dir", str(state))
    assert journal_of(state) == before  # this version has looked at it and changed nothing
    with Processes(tmp_path / "logs") as processes:
        assert asyncio.run(labels_of_the_unfinished_task(broker, processes, state)) == ["7"]
    learnt = json.loads((EARLIER / "splitter.json").read_text())["policy_state"]["t"]
    assert json.loads((state / "splitter.json").read_text())["policy_state"]["t"] > learnt
    assert list(state.glob("*.unusable")) == []
    assert journal_of(state) != before
    splitplace("restore", str(tmp_path / "copy.tar.gz"), "--state-dir", str(state))
    assert journal_of(state) == before  # tables and rows as the earlier version wrote them
    assert (state / "splitter.json").read_bytes() == (EARLIER / "splitter.json").read_bytes()
