"""Settings of a node: names that may stand in topics, codecs that fit the link."""

import re
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from splitplace.edge_node.settings import NodeSettings, default_node_name
from tests.support.settings import settings_from_flags

MACHINE_ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "node"),
    [
        ("pi-3", "pi-3"),
        ("pi.local", "pi.local"),
        ("my pi/2+#", "my-pi-2--"),
        ("_x", "x"),
        ("ü", "node"),
        ("", "node"),
        (100 * "h", 57 * "h"),
    ],
)
def test_any_host_name_becomes_a_valid_node_name_that_tells_devices_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, node: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    files = tmp_path / "none", tmp_path / "machine-id"
    assert default_node_name(files) == node
    assert NodeSettings().node == default_node_name()
    names = []
    for machine_id in (MACHINE_ID, MACHINE_ID[::-1]):
        files[1].write_text(f"{machine_id}\n")
        names.append(default_node_name(files))
        assert names[-1] == default_node_name(files), "the same after a restart"
        assert re.fullmatch(rf"{re.escape(node)}-[0-9a-f]{{6}}", names[-1])
        assert machine_id[:6] not in names[-1]
        NodeSettings(node=names[-1])
    assert names[0] != names[1]


@pytest.mark.parametrize("content", [b"", b"uninitialized\n", b"\xff" * 32, b"short"])
def test_without_a_usable_machine_id_the_host_name_is_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "pi")
    (tmp_path / "machine-id").write_bytes(content)
    assert default_node_name([tmp_path / "machine-id", tmp_path]) == "pi"


def test_a_node_name_that_cannot_stand_in_a_topic_is_refused() -> None:
    for name in ("", "a/b", "+", "#", "_aggregator"):
        with pytest.raises(ValidationError):
            NodeSettings(node=name)


def test_tensors_are_compressed_only_for_slow_links() -> None:
    assert not NodeSettings(broker="mqtt://127.0.0.1").compress
    assert not NodeSettings(broker="mqtt://localhost").compress
    assert not NodeSettings(broker="mqtt://[::1]").compress
    assert NodeSettings(broker="mqtt://192.168.1.10").compress
    assert NodeSettings(broker="mqtt://broker.local").compress
    assert not NodeSettings(broker="mqtt://192.168.1.10", link_megabytes_per_second=1000.0).compress
    assert NodeSettings(broker="mqtt://127.0.0.1", link_megabytes_per_second=10.0).compress


def test_what_was_measured_of_the_link_counts_more_than_what_was_said() -> None:
    told = NodeSettings(broker="mqtt://192.168.1.10", link_megabytes_per_second=1000.0)
    assert told.compress_at(10.0)
    assert not told.compress_at(200.0)
    assert not NodeSettings(broker="mqtt://192.168.1.10", codec="raw").compress_at(10.0)
    assert not NodeSettings(broker="mqtt://127.0.0.1").compress_at(10.0)
    assert NodeSettings(broker="mqtt://127.0.0.1", codec="zstd").compress
    assert not NodeSettings(broker="mqtt://192.168.1.10", codec="raw").compress


def test_pacing_without_a_share_is_refused() -> None:
    with pytest.raises(ValidationError, match="pacing needs a cpu_share"):
        NodeSettings(pacing=True)
    with pytest.raises(ValidationError, match="pacing needs a cpu_share"):
        NodeSettings(pacing=True, cpu_share=2.0)
    assert NodeSettings(pacing=True, cpu_share=0.25).pace == 0.25
    assert NodeSettings(cpu_share=0.25).pace == 1.0


def test_flags_are_understood() -> None:
    settings = settings_from_flags(
        NodeSettings, ["--node", "n7", "--memory-budget-mb", "64", "--cpu-share", "0.5", "--pacing"]
    )
    assert settings.node == "n7"
    assert settings.memory_budget_bytes == 64 * 1024 * 1024
    assert settings.pace == 0.5
    assert settings.fragment_folder == settings.paths.state_dir / "fragments" / "n7"
