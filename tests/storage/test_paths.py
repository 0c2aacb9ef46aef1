"""Where files lie: by setting, by systemd, or by the platform."""

from pathlib import Path

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from splitplace.bus.settings import Settings, StoreSettings
from splitplace.edge_node.settings import NodeSettings
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.storage.paths import SHIPPED_STORE, Paths, resolve_paths
from tests.support.settings import settings_from_flags

SYSTEMD = {"STATE_DIRECTORY": "/var/lib/splitplace:/var/lib/other"}


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> Unix:
    """The folders of a user of Linux."""
    monkeypatch.setenv("XDG_STATE_HOME", "/u/.local/state")
    monkeypatch.setenv("XDG_DATA_HOME", "/u/.local/share")
    return Unix("splitplace", appauthor=False)


def test_without_settings_the_platform_says_where(linux: Unix, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_paths(environment={}, platform=linux) == Paths(
        Path("/u/.local/state/splitplace"), Path("/u/.local/share/splitplace/store")
    )
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name)
    on_a_mac = resolve_paths(environment={}, platform=MacOS("splitplace", appauthor=False))
    assert on_a_mac.state_dir == Path("~/Library/Application Support/splitplace").expanduser()
    assert on_a_mac.own_store == on_a_mac.state_dir / "store"


def test_under_systemd_everything_lies_in_the_first_folder_of_the_unit(linux: Unix) -> None:
    found = resolve_paths(environment=SYSTEMD, platform=linux)
    assert found == Paths(Path("/var/lib/splitplace"), Path("/var/lib/splitplace/store"))


def test_a_state_folder_that_is_set_wins_and_holds_the_networks_too(linux: Unix) -> None:
    found = resolve_paths(Path("/data"), environment=SYSTEMD, platform=linux)
    assert found == Paths(Path("/data"), Path("/data/store"))


@pytest.mark.parametrize("environment", [{}, SYSTEMD])
def test_a_folder_for_networks_that_is_set_wins(linux: Unix, environment: dict[str, str]) -> None:
    found = resolve_paths(None, Path("/mine"), environment=environment, platform=linux)
    assert found.own_store == Path("/mine")


def test_a_tilde_is_the_home_folder(linux: Unix) -> None:
    found = resolve_paths(Path("~/state"), Path("~/networks"), environment={}, platform=linux)
    assert found == Paths(Path.home() / "state", Path.home() / "networks")


def test_no_two_names_below_the_state_folder_are_alike() -> None:
    below = Paths(Path("/state"), Path("/state/store"))
    properties = [name for name, value in vars(Paths).items() if isinstance(value, property)]
    found = [getattr(below, name) for name in properties]
    found += [below.own_store, below.fragments("one"), below.fragments("two")]
    assert len(set(found)) == len(found) > 8
    assert all(path.is_relative_to("/state") for path in found)


def test_every_part_takes_the_state_folder_from_the_same_flag_or_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPLITPLACE_STATE_DIR", "/from/variable")
    assert Settings().paths.state_dir == Path("/from/variable")
    assert GatewaySettings().journal_file == Path("/from/variable/gateway.sqlite3")
    gateway = settings_from_flags(GatewaySettings, ["--state-dir", "/from/flag"])
    assert gateway.journal_file == Path("/from/flag/gateway.sqlite3")
    assert GatewaySettings(journal=Path("here.sqlite3")).journal_file == Path("here.sqlite3")


def test_two_nodes_on_one_machine_keep_their_fragments_apart() -> None:
    one, two = NodeSettings(node="one"), NodeSettings(node="two")
    assert one.fragment_folder != two.fragment_folder
    assert one.paths == two.paths
    assert NodeSettings(fragment_dir=Path("mine")).fragment_folder == Path("mine")


def test_shipped_networks_and_those_of_the_user_are_read_as_one_store(tmp_path: Path) -> None:
    assert StoreSettings(own_store=tmp_path).model_store.folders == (tmp_path, SHIPPED_STORE)
    assert StoreSettings(store=tmp_path).model_store.folders == (tmp_path,)
