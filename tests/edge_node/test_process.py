"""An edge node as a process of its own, as a user starts it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.edge_node.world import World, routes, world
from tests.support.odd_networks import build_odd_application, endless, growing
from tests.support.tiny_application import tiny_images
from tests.support.waiting import until

GIGABYTE = 1 << 30
IDLE_MEGABYTES = 110
DEAD_WITHIN_S = 3.0


@contextmanager
def node_process(w: World, *flags: str, name: str = "n1") -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "splitplace.edge_node", "--node", name, "--broker", w.url]
    command += ["--fragment-dir", str(w.folder / name), "--vitals-every-s", "0.2", *flags]
    with (w.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_an_idle_node_is_small_and_says_goodbye_when_asked_to_end(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with world(mosquitto_url, tmp_path) as w:
        with node_process(w) as process:
            await until(lambda: len(w.outside.vitals) > 3, 30)
            resident = psutil.Process(process.pid).memory_info().rss
            assert resident < IDLE_MEGABYTES * 1_000_000
            reported = w.outside.vitals[-1].resident_bytes
            assert abs(reported - resident) < 0.2 * resident
            info = w.outside.infos[-1]
            assert info.score > 0
            assert info.encode_megabytes_per_second > 0
            assert "ONNX Runtime" in info.software
            process.send_signal(signal.SIGTERM)
            await until(lambda: not w.outside.statuses[-1].online, 20)
            await until(lambda: process.poll() is not None, 20)
            assert process.returncode == 0


async def test_the_last_will_tells_of_a_node_that_was_killed_in_the_middle_of_work(
    broker_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(4)
    async with world(broker_url, tmp_path) as w:
        with node_process(w) as process:
            await until(lambda: w.outside.statuses and w.outside.statuses[-1].online, 30)
            (route,) = routes(w.application.variant("whole"), ["n1"])
            for number in range(50):
                await w.outside.send(route, images, task=f"c.{number}")
            await until(lambda: w.outside.outputs, 20)
            process.kill()
            assert await until(lambda: not w.outside.statuses[-1].online, 10) < DEAD_WITHIN_S
        with node_process(w):
            await until(lambda: w.outside.statuses[-1].online, 30)
            await w.outside.send(route, images, task="c.after")
            await until(lambda: ("c.after", 1, "whole", 0) in w.outside.outputs, 20)


async def test_a_run_without_end_ends_the_process_which_does_not_run_that_fragment_again_at_once(
    mosquitto_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(1)
    application = build_odd_application(tmp_path / "models", endless())
    (route,) = routes(application.variant("whole"), ["n1"])
    async with world(mosquitto_url, tmp_path, application=application) as w:
        with node_process(w, "--run-limit-s", "2") as process:
            await until(lambda: w.outside.statuses and w.outside.statuses[-1].online, 30)
            await w.outside.send(route, images)
            await until(lambda: any(vitals.running for vitals in w.outside.vitals), 60)
            await until(lambda: process.poll() is not None, 60)
            assert process.returncode == 1
            assert f"fragment {route.fragment} has run for" in (tmp_path / "n1.log").read_text()
        await until(lambda: not w.outside.statuses[-1].online, 20)
        with node_process(w, "--run-limit-s", "2") as process:
            await until(lambda: w.outside.statuses[-1].online, 30)
            await w.outside.send(route, images, task="c.again")
            await until(lambda: w.outside.failures, 20)
            assert "put aside" in w.outside.failures[-1].reason
            assert process.poll() is None


async def test_a_network_whose_tensors_exceed_the_budget_fails_for_lack_of_memory_and_the_node_works_on(
    mosquitto_url: str, tmp_path: Path
) -> None:
    images, _ = tiny_images(1)
    application = build_odd_application(tmp_path / "models", growing(GIGABYTE))
    (route,) = routes(application.variant("whole"), ["n1"])
    async with world(mosquitto_url, tmp_path, application=application) as w:
        with node_process(w, "--memory-budget-mb", "64") as process:
            await until(lambda: w.outside.statuses and w.outside.statuses[-1].online, 30)
            for number in range(3):
                await w.outside.send(route, images, task=f"c.{number}")
                await until(lambda: len(w.outside.failures) > number, 20)  # noqa: B023 - awaited here
                assert w.outside.failures[-1].kind == "memory"
            assert w.outside.vitals[-1].resident_bytes < GIGABYTE / 2
            assert process.poll() is None
