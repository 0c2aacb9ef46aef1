"""What can be checked of the container and systemd files without running containers or systemd."""

import fnmatch
import os
import re
import shlex
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from paho.mqtt import client
from paho.mqtt.enums import CallbackAPIVersion

from splitplace.commands.main import COMMANDS
from splitplace.edge_node.settings import NodeSettings
from splitplace.errors import ExitCode
from splitplace.messages.limits import MAX_PACKET_BYTES
from splitplace.messages.topics import GATEWAY, PLACER, SERVICES, SPLITTER
from splitplace.storage.paths import resolve_paths
from tests.support.waiting import pass_time

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = ROOT / "splitplace" / "commands" / "service"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return whole


def instructions(dockerfile: Path, name: str) -> list[list[str]]:
    """Arguments of every instruction of a kind, continuation lines joined."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith(f"{name} ")]


def dockerfile_of(service: dict[str, Any]) -> Path:
    """The file that a part's image is built from: `splitplace-node` is that of nodes."""
    return DEPLOY / f"Dockerfile.{service['image'].removeprefix('splitplace-')}"


def command_line(service: dict[str, Any]) -> list[str]:
    """What a container of ours runs: the image's entry point and the command."""
    entry = instructions(dockerfile_of(service), "ENTRYPOINT")[0]
    words = re.findall(r"[\w-]+", " ".join(entry))
    return [*words, *map(str, service["command"])]


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parts = compose["services"].items()
    return {name: service for name, service in parts if service["image"].startswith("splitplace-")}


def test_compose_runs_a_broker_all_services_and_three_nodes(compose: dict[str, Any]) -> None:
    parts = [command_line(service)[1] for service in ours(compose).values()]
    assert sorted(parts) == sorted([*SERVICES, "node", "node", "node"])
    assert compose["services"]["broker"]["image"] == "eclipse-mosquitto:2"


def test_every_command_in_compose_is_one_that_the_command_line_knows(compose: dict[str, Any]) -> None:
    """Each part is asked for its help, and every flag must stand in it."""
    flags: dict[str, set[str]] = {}
    for service in ours(compose).values():
        program, part, *arguments = command_line(service)
        assert program == "splitplace"
        assert part in COMMANDS
        flags.setdefault(part, set()).update(word for word in arguments if word.startswith("--"))
    for part, wanted in flags.items():
        shown = subprocess.run(
            [sys.executable, "-m", "splitplace.commands.main", part, "--help"],
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert wanted <= set(re.findall(r"--[a-z-]+", shown)), part


def test_every_node_in_compose_is_limited_and_told_so(compose: dict[str, Any]) -> None:
    budgets = set()
    for name, service in ours(compose).items():
        if command_line(service)[1] != "node":
            continue
        arguments = command_line(service)[2:]
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        node = NodeSettings.model_validate(
            {
                "node": given["--node"],
                "cpu_share": float(given["--cpu-share"]),
                "memory_budget_mb": float(given["--memory-budget-mb"]),
            }
        )
        assert node.node == name
        assert node.cpu_share == service["cpus"]
        limit = int(service["mem_limit"].removesuffix("m"))
        assert node.memory_budget_mb + 110 <= limit  # fragments, and what an idle node takes
        budgets.add((node.cpu_share, node.memory_budget_mb))
    assert len(budgets) == 3


def test_every_part_is_watched_and_waits_for_the_broker(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped"
    for service in ours(compose).values():
        assert service["depends_on"]["broker"]["condition"] == "service_healthy"
        assert service["environment"]["SPLITPLACE_ALIVE_FILE"] == "/tmp/alive"
        assert "/tmp" in service["tmpfs"]
        assert not service.get("privileged")
        assert service["cap_drop"] == ["ALL"]


def test_the_health_check_says_whether_the_file_is_fresh(compose: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "alive"
    (test,) = {tuple(service["healthcheck"]["test"]) for service in ours(compose).values()}
    words = [word.replace("/tmp/alive", str(file)).replace("$$", "$") for word in test[1:]]

    def is_healthy() -> bool:
        return subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode == 0

    assert not is_healthy()  # no part has been online yet
    file.touch()
    assert is_healthy()
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 30))
    assert not is_healthy()


def test_each_image_is_built_once_and_what_containers_log_is_limited(compose: dict[str, Any]) -> None:
    built = [service["image"] for service in compose["services"].values() if "build" in service]
    assert sorted(built) == sorted({service["image"] for service in ours(compose).values()})
    for name, service in compose["services"].items():
        assert service["logging"]["options"] == {"max-size": "5m", "max-file": "3"}, name
        assert "build" in service or name == "broker" or service["pull_policy"] == "never"


def test_compose_publishes_ports_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_file_and_volume_that_compose_names_exists(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).is_file() if source.startswith(".") else source in compose["volumes"]


def test_what_is_kept_in_volumes_lies_where_the_image_puts_it(compose: dict[str, Any]) -> None:
    """The root file system is read-only, so what is written elsewhere would fail."""
    for service in ours(compose).values():
        dockerfile = dockerfile_of(service)
        ((home,),) = instructions(dockerfile, "VOLUME")
        assert instructions(dockerfile, "WORKDIR")[-1] == [home]
        variables = dict(word.split("=", 1) for words in instructions(dockerfile, "ENV") for word in words)
        assert variables["SPLITPLACE_STATE_DIR"] == home
        assert all(volume.endswith(f":{home}") for volume in service.get("volumes", ()))


def test_every_part_that_keeps_state_has_a_volume_of_its_own(compose: dict[str, Any]) -> None:
    volumes = {name: tuple(service.get("volumes", ())) for name, service in ours(compose).items()}
    keeping = {name: found for name, found in volumes.items() if found}
    assert keeping.keys() == {GATEWAY, SPLITTER, PLACER} | {
        name for name in volumes if name.startswith("node-")
    }
    assert len(set(keeping.values())) == len(keeping)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_every_file_that_an_image_copies_exists_and_is_given_to_the_builder(dockerfile: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    given = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copies = [words for words in instructions(dockerfile, "COPY") if not words[0].startswith("--from")]
    sources = [source for *sources, _ in copies for source in sources]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in given), source
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= set(sources)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_without_root_and_on_both_architectures(dockerfile: Path) -> None:
    assert instructions(dockerfile, "USER")[-1] == ["10001"]
    bases = {words[0] for words in instructions(dockerfile, "FROM")}
    assert bases == {"python:3.11-slim"}  # an image for amd64 and arm64
    assert not re.search(r"x86_64|amd64|aarch64", " ".join(map(str, instructions(dockerfile, "RUN"))))


def test_the_image_of_a_node_installs_no_torch() -> None:
    installs = [
        " ".join(words) for words in instructions(DEPLOY / "Dockerfile.node", "RUN") if "install" in words
    ]
    assert len(installs) == 1
    assert installs[0].endswith("install --no-cache-dir .[edge]")


def test_mosquitto_lets_the_largest_task_through() -> None:
    text = (ROOT / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
    found = re.search(r"^max_packet_size (\d+)$", text, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= MAX_PACKET_BYTES


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / f"splitplace-{name}.service").read_text(encoding="utf-8"))
    return parser


def test_the_systemd_unit_starts_a_node_and_sets_variables_it_knows() -> None:
    text = (UNITS / "splitplace-node.service").read_text(encoding="utf-8")
    service = unit("node")["Service"]
    assert service["ExecStart"].split()[1:] == ["node"]
    known = {f"SPLITPLACE_{name.upper()}" for name in NodeSettings.model_fields} | {"SPLITPLACE_CONFIG"}
    assert set(re.findall(r"^Environment=(\w+)=", text, re.MULTILINE)) <= known
    assert service["DynamicUser"] == "yes"
    assert service["WorkingDirectory"] == f"%S/{service['StateDirectory']}"
    paths = resolve_paths(environment={"STATE_DIRECTORY": f"/var/lib/{service['StateDirectory']}"})
    assert paths.fragments("pi") == Path("/var/lib/splitplace/fragments/pi")
    assert service["TimeoutStartSec"] == "infinity"  # it may wait for its broker


@pytest.mark.parametrize(("name", "part"), [("node", "node"), ("services", "up"), ("broker", "broker")])
def test_every_systemd_unit_is_restarted_and_has_few_rights(name: str, part: str) -> None:
    service = unit(name)["Service"]
    assert service["ExecStart"].split()[1] == part
    assert part in COMMANDS
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", str(int(ExitCode.USAGE)))
    assert unit(name)["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["MemoryMax"]
    assert {service[key] for key in ("NoNewPrivileges", "PrivateDevices", "LockPersonality")} == {"yes"}
    assert service["CapabilityBoundingSet"] == ""
    assert "AF_NETLINK" in service["RestrictAddressFamilies"].split()  # without it mDNS knows no interface
    if part != "broker":
        assert float(service["WatchdogSec"]) >= 10


def test_nodes_and_services_on_one_machine_keep_their_state_apart() -> None:
    folders = {name: unit(name)["Service"]["StateDirectory"] for name in ("node", "services", "broker")}
    assert folders["broker"] == folders["services"] != folders["node"]


def start_health_check(part: str, broker: str) -> subprocess.Popen[bytes]:
    """Start the health check that compose runs in every container of ours."""
    environment = os.environ | {"SPLITPLACE_BROKER": broker, "SPLITPLACE_PREFIX": "here/v1"}
    check = [sys.executable, str(DEPLOY / "healthcheck.py"), part]
    return subprocess.Popen(check, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def health_of(part: str, broker: str) -> int:
    """Exit code of the health check."""
    return start_health_check(part, broker).wait()


@pytest.mark.parametrize("part", ["service/gateway", "node/node-1"])
@pytest.mark.parametrize(
    ("status", "speaks", "healthy"),
    [
        ('{"online": true}', True, True),
        ('{"online": true}', False, False),
        ('{"online": false}', True, False),
        ("noise", True, False),
    ],
)
def test_a_part_is_healthy_only_while_it_says_online_and_speaks(
    broker_url: str, part: str, status: str, *, speaks: bool, healthy: bool
) -> None:
    address = urlsplit(broker_url)
    heartbeat = "node/node-1/vitals" if part.startswith("node/") else f"metrics/{part}"
    speaker = client.Client(CallbackAPIVersion.VERSION2, protocol=client.MQTTv5)
    speaker.connect(address.hostname or "", address.port or 0)
    speaker.loop_start()
    try:
        speaker.publish(f"here/v1/{part}/status", status, qos=1, retain=True).wait_for_publish(10)
        speaker.publish(f"here/v1/{heartbeat}", "{}", qos=1, retain=True).wait_for_publish(10)
        check = start_health_check(part, broker_url)
        while check.poll() is None:
            if speaks:
                speaker.publish(f"here/v1/{heartbeat}", "{}")
            pass_time(0.05)
    finally:
        speaker.disconnect()
        speaker.loop_stop()
    assert (check.returncode == 0) is healthy


def test_a_part_that_never_came_or_has_no_broker_is_not_healthy(mosquitto_url: str) -> None:
    assert health_of("service/placer", mosquitto_url) != 0
    assert health_of("service/placer", "mqtt://127.0.0.1:9") != 0
