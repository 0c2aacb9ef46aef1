"""Credentials are found where they lie, used for their own broker only, and never over a plain connection."""

from dataclasses import replace
from pathlib import Path

import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.shared.places import paths
from splitplace.edge_node.settings import NodeSettings
from splitplace.errors import ConfigurationError
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.storage.credentials import Credentials, CredentialsError
from splitplace.storage.secured import SecuredFolder

GATEWAY = Credentials(
    "service", "gateway", "mqtts://hub:8883", "home/ai", "gateway", "secret-of-gateway", "PEM of an authority"
)
OPERATOR = replace(
    GATEWAY, kind="operator", name="operator", username="operator", password="secret-of-operator"
)
NODE = replace(GATEWAY, kind="node", name="kitchen", username="kitchen~2", password="secret-of-kitchen")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with credentials of three users."""
    users = SecuredFolder(tmp_path / "secure").users
    for each in (GATEWAY, OPERATOR, NODE):
        each.save(users.file(each.name))
    return tmp_path


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    odd = replace(NODE, name='küche "1" \\ \x7f', authority="-----BEGIN\nx\n-----END")
    odd.save(tmp_path / "odd.toml")
    assert Credentials.load(tmp_path / "odd.toml") == replace(odd, authority=f"{odd.authority}\n")
    assert (tmp_path / "odd.toml").stat().st_mode & 0o777 == 0o600


def test_each_part_takes_its_own_out_of_the_state_folder(state: Path) -> None:
    assert Settings.load(state_dir=state).username == "operator"
    gateway = GatewaySettings.load(state_dir=state)
    assert (gateway.username, gateway.broker, gateway.prefix) == ("gateway", "mqtts://hub:8883", "home/ai")
    node = NodeSettings.load(state_dir=state)
    assert (node.node, node.username, node.client_name) == ("kitchen", "kitchen~2", "kitchen")


def test_a_folder_may_be_named(state: Path) -> None:
    for folder in (state / "secure", state / "secure" / "users"):
        assert GatewaySettings.load(credentials=folder).username == "gateway"


def test_a_unit_of_systemd_uses_what_was_loaded_for_it(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = state / "loaded"
    loaded.mkdir()
    (loaded / "splitplace").write_bytes((state / "secure" / "users" / "gateway.toml").read_bytes())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(loaded))
    assert GatewaySettings.load().username == "gateway"


def test_another_broker_does_not_get_a_password_that_nobody_named(state: Path) -> None:
    other = Settings.load(state_dir=state, broker="mqtts://elsewhere:8883")
    assert (other.username, other.password, other.credentials) == (None, None, None)
    same = Settings.load(state_dir=state, broker="mqtts://hub")
    assert same.username == "operator"


def test_no_password_is_sent_over_a_plain_connection(state: Path) -> None:
    file = state / "secure" / "users" / "operator.toml"
    with pytest.raises(ConfigurationError, match="use mqtts://"):
        Settings.load(credentials=file, broker="mqtt://hub:8883")


def test_settings_win_over_the_file(state: Path) -> None:
    file = state / "secure" / "users" / "operator.toml"
    chosen = Settings.load(credentials=file, broker="mqtts://broker:8883", prefix="other")
    assert (chosen.broker, chosen.prefix, chosen.username) == ("mqtts://broker:8883", "other", "operator")


def test_a_part_does_not_use_the_credentials_of_another(state: Path) -> None:
    users = state / "secure" / "users"
    with pytest.raises(CredentialsError, match="credentials of operator: gateway needs its own"):
        GatewaySettings.load(credentials=users / "operator.toml")
    with pytest.raises(CredentialsError, match="a node needs its own"):
        NodeSettings.load(credentials=users / "operator.toml")
    with pytest.raises(ConfigurationError, match="are those of kitchen: leave out --node"):
        NodeSettings.load(credentials=users / "kitchen.toml", node="cellar")


def test_who_has_none_is_told_where_they_come_from(state: Path) -> None:
    with pytest.raises(CredentialsError, match=r"no credentials for 'cellar'.*splitplace secure add"):
        NodeSettings.load(state_dir=state, node="cellar")
    (state / "secure" / "users" / "kitchen.toml").unlink()
    with pytest.raises(CredentialsError, match="credentials of no nodes"):
        NodeSettings.load(state_dir=state)


def test_an_error_about_a_file_does_not_quote_it(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text('password = "secret-of-gateway" "', encoding="utf-8")
    with pytest.raises(CredentialsError) as error:
        Settings.load(credentials=file)
    assert "secret" not in str(error.value)
    assert "secret" not in repr(GATEWAY)


def test_a_system_without_users_needs_no_credentials(tmp_path: Path) -> None:
    assert Settings.load(state_dir=tmp_path).credentials is None


def test_a_device_that_has_joined_runs_commands_that_need_no_broker(state: Path) -> None:
    (state / "secure" / "users" / "operator.toml").unlink()
    assert paths(state).logs == state / "log"
    with pytest.raises(CredentialsError, match="no credentials for 'operator'"):
        Settings.load(state_dir=state)
