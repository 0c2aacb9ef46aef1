"""User name and password of a broker: honoured or refused, handed on to children, never shown."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from splitplace.bus.settings import Settings
from splitplace.commands.shared.credentials import hand_on_credentials
from splitplace.errors import ConfigurationError
from tests.support.waiting import block_until

ROOT = Path(__file__).parents[2]


def test_credentials_of_a_url_reach_children_as_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPLITPLACE_USERNAME", "SPLITPLACE_PASSWORD"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    settings = Settings(broker="mqtt://anna:se%40cret@host")
    hand_on_credentials(settings)
    assert (os.environ["SPLITPLACE_USERNAME"], os.environ["SPLITPLACE_PASSWORD"]) == ("anna", "se@cret")
    assert settings.broker == "mqtt://host"


def test_a_password_without_a_user_name_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="no user name") as refused:
        Settings.load(broker="mqtt://:secret@host")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["mqtt://host?password=secret", "mqtt://host#secret", "http://a:secret@host?x=secret"]
)
def test_no_refused_url_shows_what_may_be_a_password(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(broker=url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("flags", "fewest", "log"),
    [((), 1, "services.log"), (("--processes",), 5, "placer.log")],
    ids=["together", "apart"],
)
def test_no_child_of_up_has_the_password_in_its_command_line(
    flags: tuple[str, ...], fewest: int, log: str, tmp_path: Path
) -> None:
    url = "mqtt://anna:swordfish@127.0.0.1:9"
    environment = {**os.environ, "SPLITPLACE_BROKER": url, "SPLITPLACE_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "splitplace", "up", *flags]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as up:
        assert up.stdout is not None
        output = b""
        try:
            while b"all services use" not in output:  # the dashboard is started before, if its port is free
                output += up.stdout.readline()
            children = psutil.Process(up.pid).children(recursive=True)
            assert len(children) >= fewest
            shown = [" ".join(child.cmdline()) for child in children]
            logs = tmp_path / "log" / log
            block_until(lambda: logs.exists() and "127.0.0.1:9" in logs.read_text(), 30)
        finally:
            up.terminate()
            output += up.communicate(timeout=30)[0]
    everything = [*shown, output.decode(), *(file.read_text() for file in (tmp_path / "log").iterdir())]
    assert not any("swordfish" in text for text in everything)


@pytest.mark.parametrize(
    ("program", "needed"),
    [
        ("examples/sensor.py", [__file__]),
        ("splitplace/commands/demo/sensor.py", ["--samples", "none.npz"]),
    ],
)
def test_sensors_take_user_name_and_password_from_their_url(
    program: str, needed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPLITPLACE_USERNAME", "SPLITPLACE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    sensor = runpy.run_path(str(ROOT / program), run_name="sensor")
    arguments = sensor["parse"](["--broker", "mqtt://anna:se%40cret@127.0.0.1:9", *needed])
    client = sensor["Sensor"](arguments)._client
    assert (client._username, client._password) == (b"anna", b"se@cret")
