"""The splitter against real brokers."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from splitplace.commands.processes.broker import Broker
from splitplace.messages.application import Application
from splitplace.messages.cluster import FragmentRequest
from splitplace.messages.frames import FragmentHeader
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.task import TaskDecided
from splitplace.messages.topics import (
    APPLICATION,
    FRAGMENT_CHUNK,
    FRAGMENT_MISSING,
    FRAGMENT_REQUEST,
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_FINISHED,
    SERVICE_STATUS,
    SPLITTER,
)
from splitplace.policies.correction import NEWEST_WEIGHT
from splitplace.policies.placement import placement_policy
from splitplace.policies.splitting import split_policy
from splitplace.services.splitter.core import SplitterCore
from splitplace.services.splitter.service import Splitter
from splitplace.services.splitter.settings import SplitterSettings
from splitplace.storage import state_file as memory
from splitplace.storage.model_store import MANIFEST, ModelStore, sha256_of
from tests.support.chains import nominal_chain
from tests.support.cluster_parts import publish_cluster
from tests.support.examples import all_of, chain, fragment, node, sha, snapshot
from tests.support.examples import application as made_up
from tests.support.messages import accepted, finished_after
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.waiting import until


class SplitterObserver(Observer):
    """Plays gateway, monitor and nodes."""

    def __init__(self, url: str, identifier: str = "observer") -> None:
        topics = (APPLICATION, JOB_DECIDED, FRAGMENT_CHUNK, FRAGMENT_MISSING, SERVICE_STATUS)
        super().__init__(url, *topics, identifier=identifier)

    @property
    def applications(self) -> dict[str, Application]:
        """The catalogue so far."""
        return {application.name: application for application in self.heard(APPLICATION)}

    @property
    def decided(self) -> list[TaskDecided]:
        """All decisions so far."""
        return self.heard(JOB_DECIDED)

    @property
    def chunks(self) -> list[tuple[FragmentHeader, bytes]]:
        """All chunks so far."""
        return self.frames(FRAGMENT_CHUNK)

    async def until_decided(self, count: int) -> list[TaskDecided]:
        """Wait for this many decisions."""
        await until(lambda: len(self.decided) >= count)
        return self.decided

    async def ask(self, sha256: str, first_chunk: int, chunks: int, name: str = "n1") -> None:
        """Request chunks of a file as a node does."""
        request = FragmentRequest(node=name, fragment=sha256, first_chunk=first_chunk, chunks=chunks)
        await self.publish(FRAGMENT_REQUEST, request)


@contextlib.asynccontextmanager
async def observed(url: str, folder: Path, **settings: object) -> AsyncIterator[SplitterObserver]:
    """An observer of a running splitter over the store in a folder that has published its catalogue."""
    chosen = {"broker": url, "store": folder / "store", "state_dir": folder / "state", **settings}
    observer = SplitterObserver(url)
    async with observer.bus, running(Splitter(SplitterSettings.model_validate(chosen)).run()):
        await observer.until(SERVICE_STATUS, lambda status: status.online and status.service == SPLITTER)
        yield observer


@pytest.fixture
def application(tmp_path: Path) -> Application:
    """One application in a store, whose whole network is a file of two and a half chunks."""
    content = bytes(range(256)) * (CHUNK_BYTES * 5 // 2 // 256)
    plain = fragment("whole", image_ms=10)
    network = nominal_chain("whole", plain.input, plain.output, len(content), sha256_of(content))
    whole = plain.model_copy(update={"sha256": network.chain.stage(0, 1).sha256, "file_bytes": len(content)})
    app = made_up([plain], [chain("whole", [plain])]).model_copy(
        update={
            "fragments": (whole,),
            "variants": (chain("whole", [whole]),),
            "chains": (network,),
        }
    )
    ModelStore(tmp_path / "store").save(app, [content])
    return app


def content_of(application: Application, folder: Path) -> bytes:
    return ModelStore(folder / "store").file_path(application.files[0].sha256).read_bytes()


async def test_the_catalogue_is_retained_and_said_again_to_a_new_broker(
    broker: Broker, tmp_path: Path, application: Application
) -> None:
    async with observed(broker.url, tmp_path) as observer:
        assert observer.applications == {"toy": application}
        late = SplitterObserver(broker.url, "late")
        async with late.bus:
            await until(lambda: late.applications)
        observer.forget()
        broker.kill()
        broker.start()
        await until(lambda: observer.applications == {"toy": application}, 15.0)


def _store_below(folder: Path) -> Path:
    return next(path.parent.parent for path in folder.rglob(MANIFEST))


async def test_an_application_is_added_replaced_and_removed_while_the_system_runs(
    broker_url: str, tmp_path: Path, application: Application
) -> None:
    watcher = Observer(broker_url, raw=[APPLICATION], identifier="watcher")
    async with watcher.bus, observed(broker_url, tmp_path, look_every_s=0.1) as observer:
        store = _store_below(tmp_path)
        shutil.copytree(store / "toy", store / "more")
        manifest = store / "more" / MANIFEST
        manifest.write_text(application.model_copy(update={"name": "more"}).model_dump_json())
        await until(lambda: set(observer.applications) == {"toy", "more"})
        changed = application.model_copy(update={"name": "more", "title": "Replaced"})
        (store / "new").write_text(changed.model_dump_json())
        (store / "new").replace(manifest)
        await until(lambda: observer.applications["more"].title == "Replaced")
        shutil.rmtree(store / "more")
        await until(lambda: is_cleared(watcher, "more"))
        assert not is_cleared(watcher, "toy")


@pytest.mark.parametrize("damage", [b"", b"noise"], ids=["deleted", "unreadable"])
async def test_a_catalogue_entry_that_was_damaged_is_published_again(
    broker_url: str, tmp_path: Path, application: Application, damage: bytes
) -> None:
    async with observed(broker_url, tmp_path) as observer:
        for _ in range(2):
            observer.forget()
            await observer.publish_raw(APPLICATION.at(application="toy"), damage, retain=True)
            await until(lambda: observer.applications == {"toy": application})
        late = SplitterObserver(broker_url, "late")
        async with late.bus:
            await until(lambda: late.applications == {"toy": application})


@pytest.mark.parametrize("moment", ["before its start", "while it runs"])
async def test_an_entry_of_an_application_that_the_store_does_not_hold_is_cleared(
    broker_url: str, tmp_path: Path, application: Application, moment: str
) -> None:
    stale = application.model_copy(update={"name": "removed"})
    watcher = Observer(broker_url, raw=[APPLICATION], identifier="watcher")
    async with watcher.bus:
        if moment == "before its start":
            await watcher.publish(APPLICATION, stale, application="removed")
        async with observed(broker_url, tmp_path):
            if moment == "while it runs":
                await watcher.publish(APPLICATION, stale, application="removed")
            await until(lambda: is_cleared(watcher, "removed"))
            assert not is_cleared(watcher, "toy")


async def test_while_the_store_is_damaged_no_entry_is_cleared(
    mosquitto_url: str, tmp_path: Path, application: Application
) -> None:
    shutil.copytree(tmp_path / "store" / "toy", tmp_path / "store" / "torn")
    (tmp_path / "store" / "torn" / MANIFEST).write_text("{")
    watcher = Observer(mosquitto_url, raw=[APPLICATION], identifier="watcher")
    async with watcher.bus:
        await watcher.publish(
            APPLICATION, application.model_copy(update={"name": "torn"}), application="torn"
        )
        async with observed(mosquitto_url, tmp_path) as observer:
            observer.forget()
            await observer.publish_raw(APPLICATION.at(application="toy"), b"", retain=True)
            await until(lambda: "toy" in observer.applications)
            assert not is_cleared(watcher, "torn")


def is_cleared(watcher: Observer, name: str) -> bool:
    """Whether the last message on an entry's topic was empty."""
    heard = [each.payload for each in watcher.payloads(APPLICATION) if each.parameters["application"] == name]
    return bool(heard) and not heard[-1]


async def test_a_task_is_decided_with_the_cluster_and_learnt_from(
    broker_url: str, tmp_path: Path, application: Application
) -> None:
    async with observed(broker_url, tmp_path, save_every_s=0.05) as observer:
        await publish_cluster(observer.bus, snapshot(node("a", loaded=all_of(application))))
        await observer.publish(JOB_ACCEPTED, accepted("c.1"))
        await until(lambda: observer.decided)
        decided = observer.decided[0]
        assert (decided.task, decided.variant, decided.policy) == ("c.1", "whole", "expected-reward")
        assert decided.predicted_ms is not None
        saved = tmp_path / "state" / "splitter.json"
        await observer.publish(JOB_FINISHED, finished_after(decided, 3 * decided.predicted_ms))
        await until(lambda: saved.exists() and json.loads(saved.read_text())["correction"])
        assert json.loads(saved.read_text())["correction"]["toy"]["whole"] == pytest.approx(
            3**NEWEST_WEIGHT, abs=0.01
        )


async def test_learnt_state_is_saved_on_the_way_out_and_used_after_a_restart(
    mosquitto_url: str, tmp_path: Path, application: Application
) -> None:
    predictions = []
    for task in ("c.1", "c.2"):
        async with observed(mosquitto_url, tmp_path, save_every_s=1000) as observer:
            await publish_cluster(observer.bus, snapshot(node("a", loaded=all_of(application))))
            await observer.publish(JOB_ACCEPTED, accepted(task))
            decided = (await observer.until_decided(1))[0]
            assert decided.predicted_ms is not None
            predictions.append(decided.predicted_ms)
            await observer.publish(JOB_FINISHED, finished_after(decided, 3 * decided.predicted_ms))
            await observer.publish(JOB_ACCEPTED, accepted(f"{task}-after"))
            await observer.until_decided(2)
    assert predictions[1] == pytest.approx(3**NEWEST_WEIGHT * predictions[0], rel=1e-2)


async def test_a_bandit_begins_with_the_memory_of_another_run_and_then_keeps_its_own(
    mosquitto_url: str, tmp_path: Path, application: Application
) -> None:
    trained = SplitterCore(split_policy("mab"), placement_policy("earliest-finish"))
    trained.restore(
        {
            "correction": {},
            "policy": "mab",
            "policy_state": {
                "t": 200,
                "epsilon": 0.1,
                "rho": 0.9,
                "response_ms": {"toy": 500.0},
                "high": {"whole": {"q": 0.9, "n": 100, "o": 0.9, "samples": 100}},
                "low": {},
            },
        }
    )
    memory.save(tmp_path / "trained.json", trained.state())
    settings = {"policy": "mab", "arms": "whole", "warm_start": tmp_path / "trained.json"}
    own = tmp_path / "state" / "splitter.json"
    for times in (1, 2):
        async with observed(mosquitto_url, tmp_path, **settings) as observer:
            await publish_cluster(observer.bus, snapshot(node("a", loaded=all_of(application))))
            await observer.publish(JOB_ACCEPTED, accepted(f"c.{times}", deadline_ms=600.0))
            decided = (await observer.until_decided(1))[0]
            assert decided.scores["whole"] == pytest.approx(0.9, abs=0.2)
            assert "at least the 500 ms expected" in decided.reason
        assert json.loads(own.read_text())["policy_state"]["high"]["whole"]["n"] == 100 + times


def test_arms_that_name_nothing_are_refused_with_what_is_possible() -> None:
    with pytest.raises(ValidationError, match="give all, paper, or variants with commas between"):
        SplitterSettings(arms=",")


@pytest.mark.serial
async def test_a_task_that_comes_before_the_cluster_is_known_waits_or_is_refused_in_time(
    mosquitto_url: str, tmp_path: Path, application: Application
) -> None:
    async with observed(mosquitto_url, tmp_path) as observer:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await observer.publish(JOB_ACCEPTED, accepted("c.short", deadline_ms=300))
        await observer.publish(JOB_ACCEPTED, accepted("c.long", deadline_ms=20_000))
        await until(lambda: observer.decided)
        assert observer.decided[0].task == "c.short"
        assert observer.decided[0].variant is None
        assert 0.2 < loop.time() - begin < 1.0
        await publish_cluster(observer.bus, snapshot(node("a", loaded=all_of(application))))
        await until(lambda: len(observer.decided) == 2)
        assert (observer.decided[1].task, observer.decided[1].variant) == ("c.long", "whole")


async def test_a_file_comes_in_chunks_that_make_the_file(
    broker_url: str, tmp_path: Path, application: Application
) -> None:
    content = content_of(application, tmp_path)
    async with observed(broker_url, tmp_path) as observer:
        await observer.ask(sha256_of(content), 0, 64)
        await until(lambda: len(observer.chunks) == 3)
        assert [header.chunk for header, _ in observer.chunks] == [0, 1, 2]
        assert {header.file_bytes for header, _ in observer.chunks} == {len(content)}
        assert b"".join(body for _, body in observer.chunks) == content
        await observer.ask(sha256_of(content), 2, 1)
        await until(lambda: len(observer.chunks) == 4)
        assert observer.chunks[3] == observer.chunks[2]


async def test_chunks_that_several_nodes_ask_for_together_are_sent_once(
    mosquitto_url: str, tmp_path: Path, application: Application
) -> None:
    sha256 = application.files[0].sha256
    async with observed(mosquitto_url, tmp_path) as observer:
        await asyncio.gather(*(observer.ask(sha256, 0, 3, f"n{index}") for index in range(10)))
        await until(lambda: len(observer.chunks) >= 3)
        await observer.ask(sha256, 0, 1)
        await until(lambda: len(observer.chunks) >= 4)
        assert len(observer.chunks) < 10


async def test_what_the_repository_does_not_have_or_what_was_changed_is_said_to_be_missing(
    broker_url: str, tmp_path: Path, application: Application
) -> None:
    sha256 = application.files[0].sha256
    path = ModelStore(tmp_path / "store").file_path(sha256)
    async with observed(broker_url, tmp_path) as observer:
        await observer.ask(sha("unknown"), 0, 1)
        missing = await observer.until(FRAGMENT_MISSING)
        assert missing.fragment == sha("unknown")
        path.write_bytes(b"not what its name says")
        await observer.ask(sha256, 0, 1)
        missing = await observer.until(FRAGMENT_MISSING, lambda missing: missing.fragment == sha256)
        assert str(tmp_path) not in missing.reason
        assert observer.chunks == []


async def test_a_memory_that_is_not_the_splitters_does_not_stop_it(
    mosquitto_url: str, tmp_path: Path, application: Application
) -> None:
    memory.save(tmp_path / "state" / "splitter.json", {"correction": "nonsense"})
    async with observed(mosquitto_url, tmp_path) as observer:
        assert observer.applications == {"toy": application}


def test_without_a_model_store_the_process_says_so_and_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "splitplace.services.splitter", "--store", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "nowhere: is not a folder (choose another with --store)" in ended.stderr
