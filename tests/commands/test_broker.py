"""A broker is found, started, restarted, and never left behind."""

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiomqtt
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from splitplace.commands.processes import broker as broker_module
from splitplace.commands.processes.broker import (
    MOSQUITTO_SETTINGS,
    BrokerError,
    StartedKind,
    found_broker,
    free_port,
    mosquitto_path,
    started_broker,
)
from splitplace.messages.limits import MAX_PACKET_BYTES, MAX_TASK_BYTES

KINDS: tuple[StartedKind, ...] = ("mosquitto", "embedded")
REPOSITORY = Path(__file__).parents[2]


def _client(port: int, protocol: aiomqtt.ProtocolVersion = aiomqtt.ProtocolVersion.V5) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", port, protocol=protocol)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_largest_task_passes_through_a_started_broker(kind: StartedKind, tmp_path: Path) -> None:
    with started_broker(tmp_path, kind=kind) as broker:
        async with asyncio.timeout(20), _client(broker.port) as client:
            await client.subscribe("splitplace/v1/task/mnist", qos=1)
            await client.publish("splitplace/v1/task/mnist", bytes(MAX_TASK_BYTES), qos=1)
            message = await anext(client.messages)
            assert message.payload == bytes(MAX_TASK_BYTES)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_3_1_1_client_is_served(kind: StartedKind, tmp_path: Path) -> None:
    legacy_port = free_port()
    with started_broker(tmp_path, kind=kind, legacy_port=legacy_port) as broker:
        port = broker.port if kind == "mosquitto" else legacy_port
        async with asyncio.timeout(20), _client(port, aiomqtt.ProtocolVersion.V311) as client:
            await client.subscribe("a", qos=1)
            await client.publish("a", b"hello", qos=1)
            assert (await anext(client.messages)).payload == b"hello"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_broker_starts_again_on_its_port(kind: StartedKind, tmp_path: Path) -> None:
    with started_broker(tmp_path, kind=kind) as broker:
        url, first = broker.url, broker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        broker.kill()
        assert broker.pid is None
        broker.start()
        assert (broker.url, broker.pid != first) == (url, True)
        async with asyncio.timeout(10), _client(broker.port):
            pass


@pytest.mark.mosquitto
async def test_mosquitto_keeps_retained_messages_when_it_is_stopped_in_order(tmp_path: Path) -> None:
    with started_broker(tmp_path, kind="mosquitto") as broker:
        async with asyncio.timeout(10), _client(broker.port) as client:
            await client.publish("kept", b"still here", qos=1, retain=True)
        broker.stop()
        broker.start()
        async with asyncio.timeout(10), _client(broker.port) as client:
            await client.subscribe("kept", qos=1)
            assert (await anext(client.messages)).payload == b"still here"


@pytest.mark.mosquitto
def test_mosquitto_tells_clients_our_packet_limit(tmp_path: Path) -> None:
    limits: queue.Queue[int] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda _client, _data, _flags, _reason, said: limits.put(said.MaximumPacketSize)
    with started_broker(tmp_path, kind="mosquitto") as broker:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        try:
            assert limits.get(timeout=10) == MAX_PACKET_BYTES
        finally:
            client.disconnect()
            client.loop_stop()


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_frees_the_port_and_leaves_no_process(kind: StartedKind, tmp_path: Path) -> None:
    with started_broker(tmp_path, kind=kind) as broker:
        pid = broker.pid
        port = broker.port
    assert pid is not None
    assert not psutil.pid_exists(pid)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_dies_with_a_parent_that_is_killed(kind: StartedKind, tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from splitplace.commands.processes.broker import started_broker\n"
        "with started_broker(Path(sys.argv[1]), kind=sys.argv[2]) as broker:\n"
        "    print(broker.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), kind],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
    finally:
        parent.kill()
        parent.communicate()
    gone, _ = psutil.wait_procs([child], timeout=60)
    assert gone == [child]


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(BrokerError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another --port"),
            started_broker(tmp_path, port=port),
        ):
            pass


@pytest.mark.mosquitto
def test_a_broker_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "MOSQUITTO_SETTINGS", {**MOSQUITTO_SETTINGS, "no_such_setting": "1"})
    with pytest.raises(BrokerError, match="no_such_setting"), started_broker(tmp_path, kind="mosquitto"):
        pass


def test_a_given_url_is_used_as_it_is(tmp_path: Path) -> None:
    with found_broker("mqtts://broker.example:8884", tmp_path) as found:
        assert (found.kind, found.url, found.own) == ("given", "mqtts://broker.example:8884", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mosquitto
def test_mosquitto_comes_first_and_the_wheel_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with found_broker(None, tmp_path / "first") as found:
        assert found.kind == "mosquitto"
    monkeypatch.setattr(broker_module, "mosquitto_path", lambda: None)
    with found_broker(None, tmp_path / "second") as found:
        assert found.kind == "embedded"


def test_without_any_broker_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "mosquitto_path", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BrokerError, match="apt install mosquitto"), found_broker(None, tmp_path):
        pass


def test_mosquitto_is_found_outside_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mosquitto").write_text("#!/bin/sh\n")
    (tmp_path / "mosquitto").chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(broker_module, "_SEARCHED", str(tmp_path))
    assert mosquitto_path() == str(tmp_path / "mosquitto")


def test_the_shipped_configuration_says_the_same_as_ours() -> None:
    lines = (REPOSITORY / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    shipped = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    assert {name: shipped.get(name) for name in MOSQUITTO_SETTINGS} == dict(MOSQUITTO_SETTINGS)
