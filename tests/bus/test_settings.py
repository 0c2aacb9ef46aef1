"""Settings: flags win over variables, variables over the TOML file; bad ones are refused with a hint."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from splitplace.bus.known_keys import OF_PARTS
from splitplace.bus.settings import CONFIG_VARIABLE, Settings, StoreSettings
from splitplace.edge_node.settings import NodeSettings
from splitplace.errors import ConfigurationError
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.services.placer.settings import PlacerSettings
from splitplace.services.resource_monitor.settings import ResourceMonitorSettings
from splitplace.services.result_aggregator.settings import ResultAggregatorSettings
from splitplace.services.splitter.settings import SplitterSettings
from tests.support.settings import settings_from_flags


@pytest.fixture(autouse=True)
def _only_what_the_test_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BROKER", "PREFIX", "PASSWORD", "GRACE_MS"):
        monkeypatch.delenv(f"SPLITPLACE_{name}", raising=False)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "splitplace.toml"))


def write_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "splitplace.toml").write_text(text)


def test_the_defaults_are_a_broker_on_this_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.prefix) == ("127.0.0.1", 1883, "splitplace/v1")


def test_flags_win_over_variables_and_variables_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_toml(
        tmp_path, 'broker = "mqtt://file:1"\nprefix = "file"\ngrace_ms = 100\nnode = "of-another-part"\n'
    )
    monkeypatch.setenv("SPLITPLACE_BROKER", "mqtt://variable:2")
    monkeypatch.setenv("SPLITPLACE_GRACE_MS", "200")
    settings = settings_from_flags(GatewaySettings, ["--grace-ms", "300"])
    assert (settings.broker, settings.prefix, settings.grace_ms) == ("mqtt://variable:2", "file", 300.0)


def test_a_host_alone_is_a_broker_and_tls_has_its_own_port() -> None:
    assert Settings(broker="example.org").port == 1883
    assert Settings(broker="mqtts://example.org").port == 8883
    assert Settings(broker="mqtt://example.org:99").port == 99


@pytest.mark.parametrize("broker", ["http://example.org", "mqtt://", "mqtt:///x"])
def test_what_is_no_broker_url_is_refused(broker: str) -> None:
    with pytest.raises(ValidationError, match="is not a broker URL like"):
        Settings(broker=broker)


@pytest.mark.parametrize("prefix", ["", "/", "a/+/b", "a/#"])
def test_what_cannot_be_a_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="cannot be a topic prefix"):
        Settings(prefix=prefix)


def test_an_empty_path_is_an_error_and_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toml(tmp_path, "")
    monkeypatch.setenv("SPLITPLACE_OWN_STORE", "")
    with pytest.raises(ConfigurationError, match="SPLITPLACE_OWN_STORE: it is empty"):
        StoreSettings.load()
    monkeypatch.delenv("SPLITPLACE_OWN_STORE")
    write_toml(tmp_path, 'ca_file = ""')
    with pytest.raises(ConfigurationError, match="ca_file: it is empty; name a folder"):
        Settings.load()


def test_an_unknown_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings_from_flags(GatewaySettings, ["--colour", "red"])
    assert ended.value.code == 2
    assert "No such option: --colour" in capsys.readouterr().err


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(Settings.model_validate({"password": "secret"}))


def test_the_configuration_file_may_begin_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors of Windows write one."""
    file = tmp_path / "splitplace.toml"
    file.write_text('prefix = "a/b"\n', "utf-8-sig")
    monkeypatch.setenv("SPLITPLACE_CONFIG", str(file))
    assert Settings.load().prefix == "a/b"


PARTS = (
    *(GatewaySettings, SplitterSettings, PlacerSettings, ResourceMonitorSettings),
    *(ResultAggregatorSettings, NodeSettings),
)


def test_the_keys_that_a_file_may_have_are_the_settings_of_all_parts() -> None:
    own = {name for part in PARTS for name in part.model_fields}
    assert own - set(StoreSettings.model_fields) == OF_PARTS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('prefix = "a"\nbrocker = "mqtt://x"\n', ":2: brocker: no part knows it; did you mean broker?"),
        ("\nstate-dir = '/x'\n", ":2: state-dir: no part knows it; did you mean state_dir?"),
        ("zzz = 1\n", ":1: zzz: no part knows it; every part lists its settings with --help"),
        ("# a\n[gateway]\ngrace_ms = 1\n", ":2: [gateway]: the file has no tables"),
    ],
)
def test_a_key_of_the_file_that_no_part_knows_is_an_error_with_file_line_and_nearest_key(
    text: str, expected: str, tmp_path: Path
) -> None:
    write_toml(tmp_path, text)
    for part in PARTS:
        with pytest.raises(ConfigurationError) as found:
            part.load()
        assert str(found.value).startswith(f"{tmp_path / 'splitplace.toml'}{expected}")


def test_every_wrong_key_is_named(tmp_path: Path) -> None:
    write_toml(tmp_path, "one = 1\ntwo = 2\nlog_level = 'DEBUG'\n")
    with pytest.raises(ConfigurationError) as found:
        Settings.load()
    assert [line.split(": ")[1] for line in str(found.value).splitlines()] == ["one", "two"]
