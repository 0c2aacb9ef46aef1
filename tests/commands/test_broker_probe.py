"""The doctor's experiments on real brokers."""

import socket
from pathlib import Path

import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.doctor.broker_probe import BrokerProbe, ProbeError
from splitplace.commands.processes import broker as broker_module
from splitplace.commands.processes.broker import MOSQUITTO_SETTINGS, free_port, started_broker
from splitplace.messages.limits import MAX_PACKET_BYTES, MAX_TASK_BYTES


def test_our_brokers_pass_every_experiment(broker_url: str) -> None:
    with BrokerProbe(Settings(broker=broker_url)) as probe:
        assert probe.greeting.max_packet_bytes in {None, MAX_PACKET_BYTES}
        probe.round_trip(MAX_TASK_BYTES)
        probe.retained()
        assert probe.queue_holds(1500) == 1500


def test_the_experiments_leave_nothing_retained(mosquitto_url: str) -> None:
    settings = Settings(broker=mosquitto_url)
    with BrokerProbe(settings) as probe:
        probe.retained()
    with BrokerProbe(settings) as probe:
        probe._subscribe(f"{settings.prefix}/doctor/+/retained")
        with pytest.raises(ProbeError, match="did not come back"):
            probe._next(0.3)


@pytest.mark.mosquitto
def test_a_broker_with_the_usual_queue_is_seen_to_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "MOSQUITTO_SETTINGS", {"allow_anonymous": "true"})
    with (
        started_broker(tmp_path, kind="mosquitto") as broker,
        BrokerProbe(Settings(broker=broker.url)) as probe,
    ):
        assert probe.queue_holds(1500) < 1100


@pytest.mark.mosquitto
def test_a_broker_with_small_packets_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {**MOSQUITTO_SETTINGS, "max_packet_size": "2000000"}
    monkeypatch.setattr(broker_module, "MOSQUITTO_SETTINGS", small)
    with (
        started_broker(tmp_path, kind="mosquitto") as broker,
        BrokerProbe(Settings(broker=broker.url)) as probe,
    ):
        assert probe.greeting.max_packet_bytes == 2_000_000
        # Only now: a busy machine may need longer to connect.
        monkeypatch.setattr("splitplace.commands.doctor.broker_probe.WAIT_S", 2.0)
        with pytest.raises(ProbeError):
            probe.round_trip(MAX_TASK_BYTES)


def test_nobody_there_is_an_error() -> None:
    with (
        pytest.raises(ProbeError, match="refused"),
        BrokerProbe(Settings(broker=f"mqtt://127.0.0.1:{free_port()}")),
    ):
        pass


def test_something_that_is_no_broker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitplace.commands.doctor.broker_probe.WAIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ProbeError, match="Is it an MQTT broker"), BrokerProbe(Settings(broker=url)):
            pass


@pytest.mark.mosquitto
def test_a_user_without_rights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read splitplace/#\n")
    monkeypatch.setattr(broker_module, "MOSQUITTO_SETTINGS", {**MOSQUITTO_SETTINGS, "acl_file": str(acl)})
    with (
        started_broker(tmp_path, kind="mosquitto") as broker,
        BrokerProbe(Settings(broker=broker.url)) as probe,
    ):
        # Only now: a busy machine may need longer to connect.
        monkeypatch.setattr("splitplace.commands.doctor.broker_probe.WAIT_S", 2.0)
        with pytest.raises(ProbeError, match="may this user"):
            probe.round_trip(10)
