"""Commands and sensors against a whole running system."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitplace.commands.main import main
from splitplace.commands.processes.broker import free_port
from splitplace.commands.watch.recording import Log
from splitplace.messages.task import TaskDecided, TaskFinished
from tests.support.tiny_application import LABELS, tiny_images
from tests.support.whole_system import NODES, Setup, System, running_system

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
SENSOR = "examples/sensor.py"
DEMO_SENSOR = "splitplace/commands/demo/sensor.py"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """On the broker of those who install none; `tests/security` runs commands on Mosquitto."""
    with running_system(
        tmp_path_factory.mktemp("system"), "embedded", Setup("rule", together=True)
    ) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command has written, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Shown:
    """Run a command in this process: a new interpreter for each would take most of the time."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code or 0
    assert isinstance(code, int)
    return Shown(code, out.getvalue(), errors.getvalue())


def pictures(folder: Path, count: int) -> tuple[list[str], list[int]]:
    """PNG files and their classes."""
    images, labels = tiny_images(count, seed=7)
    files = [folder / f"picture-{index}.png" for index in range(count)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image[0]).save(file)
    return [str(file) for file in files], labels.tolist()


def test_submitted_pictures_are_answered_with_labels_decision_nodes_and_time(
    system: System, tmp_path: Path
) -> None:
    files, classes = pictures(tmp_path, 3)
    truth = ",".join(map(str, classes))
    shown = run("submit", *files, "--app", "tiny", "--deadline", "10s", "--labels", truth, *at(system))
    assert shown.returncode == 0, shown.stderr
    for index, label in enumerate(classes):
        assert f"picture-{index}.png" in shown.stdout
        assert LABELS[label] in shown.stdout
    assert shown.stdout.count("right") >= 3
    assert "wrong" not in shown.stdout
    assert any(node in shown.stdout for node in NODES)
    assert "ms of 10000 ms" in shown.stdout


def test_a_submitted_array_is_a_batch(system: System, tmp_path: Path) -> None:
    images, labels = tiny_images(20, seed=3)
    np.save(tmp_path / "batch.npy", images)
    truth = ",".join(map(str, labels))
    shown = run(
        *("submit", str(tmp_path / "batch.npy"), "--app", "tiny", "--deadline", "10s", "--labels", truth),
        *at(system),
    )
    assert (shown.returncode, "wrong" in shown.stdout) == (0, False), shown.stderr
    assert shown.stdout.count("right") >= 20


def test_a_refused_task_says_why_and_exits_with_3(system: System, tmp_path: Path) -> None:
    files, _ = pictures(tmp_path, 1)
    shown = run("submit", *files, "--app", "unheard-of", *at(system))
    assert shown.returncode == 3
    assert "no application 'unheard-of'; there is: tiny" in shown.stderr


def test_a_hopeless_deadline_is_refused_with_the_reason(system: System, tmp_path: Path) -> None:
    files, _ = pictures(tmp_path, 1)
    shown = run("submit", *files, "--app", "tiny", "--deadline", "1ms", *at(system))
    assert shown.returncode in {3, 4}
    assert shown.stderr.startswith(("refused: ", "expired: "))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("no-such.png", "--app", "tiny"), "No such file"),
        (("picture-0.png", "batch.npy", "--app", "tiny"), "give pictures"),
        (("picture-0.png", "--app", "tiny", "--deadline", "soon"), "is not a duration"),
        (("picture-0.png", "--app", "tiny", "--labels", "one"), "is not a list of class numbers"),
        (("pickled.npy", "--app", "tiny"), "not a readable .npy array"),
    ],
)
def test_wrong_flags_and_files_are_usage_errors(
    system: System, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    pictures(tmp_path, 1)
    np.save(tmp_path / "batch.npy", tiny_images(1)[0])
    np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
    files = [str(tmp_path / part) if "." in part else part for part in arguments]
    shown = run("submit", *files, *at(system))
    assert (shown.returncode, complaint in " ".join(shown.stderr.split())) == (2, True), shown.stderr


def test_status_shows_services_and_nodes(system: System) -> None:
    shown = run("status", *at(system))
    assert shown.returncode == 0, shown.stderr
    status: dict[str, Any] = json.loads(run("status", "--json", *at(system)).stdout)
    assert {service["name"]: service["online"] for service in status["services"]} == dict.fromkeys(
        ("gateway", "splitter", "placer", "resource-monitor", "result-aggregator"), True
    )
    assert [(node["name"], node["online"]) for node in status["nodes"]] == [(name, True) for name in NODES]
    assert all(name in shown.stdout for name in NODES)


def test_an_application_is_inspected_on_the_running_nodes(system: System) -> None:
    shown = run("models", "inspect", "tiny", "--from-system", *at(system))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("On your 3 nodes: ")
    found: dict[str, Any] = json.loads(run("models", "inspect", "tiny", "--json", *at(system)).stdout)
    assert [node["name"] for node in found["nodes"]] == list(NODES)
    for variant in found["variants"]:
        assert f"{variant['variant']}: one input " in shown.stdout
        assert {node for stage in variant["stages"] for node in stage["nodes"]} <= set(NODES)
        assert 0 < variant["predicted_ms"] <= variant["micro_batch_ms"]
    unknown = run("models", "inspect", "unheard-of", *at(system))
    assert (unknown.returncode, "there are: tiny" in unknown.stderr) == (2, True)


def test_the_doctor_finds_nothing_wrong(system: System) -> None:
    shown = run("doctor", "--store", str(system.store), *at(system))
    assert (shown.returncode, "fail " in shown.stdout) == (0, False), shown.stdout


def test_the_doctor_sees_a_file_that_was_changed(system: System, tmp_path: Path) -> None:
    store = tmp_path / "store"
    subprocess.run(["cp", "-r", str(system.store), str(store)], check=True)
    file = next(store.glob("tiny/pieces/*"))
    file.write_bytes(file.read_bytes() + b"x")
    shown = run("doctor", "--store", str(store), *at(system))
    assert shown.returncode == 1
    assert "fail model store" in shown.stdout


def test_watch_prints_lines_where_there_is_no_terminal(system: System) -> None:
    shown = run("watch", "--seconds", "6", *at(system))
    assert shown.returncode == 0, shown.stderr
    assert "3 nodes, 0 tasks accepted" in shown.stdout


def test_watch_follows_one_task_and_draws_its_path(system: System, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "splitplace", "watch", "--task", "submit-*", *at(system)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        (file,), _ = pictures(tmp_path, 1)
        for _ in range(20):  # until one is sent after it has subscribed
            if watching.poll() is not None:
                break
            run("submit", file, "--app", "tiny", "--deadline", "10s", *at(system))
        output, errors = watching.communicate()
    assert watching.returncode == 0, errors
    assert "1 x tiny" in output
    assert " on " in output
    assert "answered in time" in output


def test_watch_says_that_a_task_did_not_come(system: System) -> None:
    shown = run("watch", "--task", "nobody.t1", "--seconds", "1", *at(system))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("waiting for task nobody.t1 on mqtt://")
    assert "task nobody.t1 has not ended meanwhile" in shown.stderr


def test_watch_prints_either_lines_or_json(system: System) -> None:
    shown = run("watch", "--plain", "--json", *at(system))
    assert shown.returncode == 2
    assert "exclude each other" in shown.stderr


def test_the_answer_to_a_submitted_task_is_printed_as_json(system: System, tmp_path: Path) -> None:
    (file,), (label,) = pictures(tmp_path, 1)
    shown = run("submit", file, "--app", "tiny", "--deadline", "10000", "--json", *at(system))
    answer: dict[str, Any] = json.loads(shown.stdout)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert (answer["status"], answer["deadline_ms"]) == ("answered", 10_000)
    assert [prediction["index"] for prediction in answer["predictions"]] == [label]


def test_the_answer_to_a_refused_task_is_printed_as_json_too(system: System, tmp_path: Path) -> None:
    files, _ = pictures(tmp_path, 1)
    shown = run("submit", *files, "--app", "unheard-of", "--json", *at(system))
    answer = json.loads(shown.stdout)
    assert (shown.returncode, answer["status"]) == (3, "invalid")
    assert answer["reason"] in shown.stderr


def test_a_picture_that_cannot_be_read_is_not_valid(system: System, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    shown = run("submit", str(tmp_path / "broken.png"), "--app", "tiny", *at(system))
    assert shown.returncode == 3
    assert shown.stderr == "invalid: an image is not a readable PNG, JPEG, WebP, GIF, BMP or TIFF\n"


def test_the_checks_of_the_doctor_are_printed_as_json(system: System) -> None:
    shown = run("doctor", "--json", "--store", str(system.store), *at(system))
    checks = json.loads(shown.stdout)["checks"]
    assert (shown.returncode, shown.stderr) == (0, "")
    assert {"broker", "services", "nodes", "model store"} <= {check["name"] for check in checks}
    assert {check["level"] for check in checks} <= {"ok", "warn"}


def test_watch_prints_each_message_as_a_line_of_json_that_replay_reads(
    system: System, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "splitplace", "watch", "--json", "--seconds", "8", *at(system)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        first = watching.stdout.readline()  # it is connected
        files, _ = pictures(tmp_path, 1)
        assert run("submit", *files, "--app", "tiny", "--deadline", "10s", *at(system)).returncode == 0
        # Not `communicate`: it would lose what was read ahead of the first line.
        others, errors = watching.stdout.read(), watching.stderr.read()
    lines = [json.loads(line) for line in (first + others).splitlines()]
    assert all(line.keys() == {"topic", "payload"} for line in lines)
    assert errors.startswith("watching ")
    (tmp_path / "log.jsonl").write_text(first + others)
    log = Log(tmp_path / "log.jsonl")
    assert {type(event) for event in log.events()} == {TaskDecided, TaskFinished}
    assert log.broken == 0


def printed(*command: str, variables: dict[str, str] | None = None) -> str:
    """Run a program to its end, and return what it printed."""
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY, env=variables
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def run_sensor(program: str, system: System, *arguments: str) -> str:
    """Run a sensor written in Python, and return what it printed."""
    return printed(sys.executable, program, *at(system), "--application", "tiny", *arguments)


def test_the_sensor_of_the_demo_gets_an_answer_to_every_task(system: System, tmp_path: Path) -> None:
    images, labels = tiny_images(50)
    samples, report_file = tmp_path / "samples.npz", tmp_path / "report.json"
    np.savez(samples, images=images[:, 0], labels=labels)
    deadlines = ("--tight-ms", "5000", "--tightest", "1", "--loosest", "2")
    tasks = ("--tasks", "25", "--rate", "20", "--batch-max", "6")
    shown = run_sensor(
        DEMO_SENSOR, system, "--samples", str(samples), *tasks, *deadlines, "--report", str(report_file)
    )
    assert shown.startswith("25 sent, 25 answered; ")
    report = json.loads(report_file.read_text())
    assert {task["format"] for task in report} == {"msgpack", "json", "png"}
    assert [task["answers"] for task in report] == [1] * 25
    assert {task["status"] for task in report} == {"answered"}
    assert [task["right"] for task in report] == [task["batch"] for task in report]


def test_the_python_sensor_prints_what_is_found_in_files(system: System, tmp_path: Path) -> None:
    files, labels = pictures(tmp_path, 2)
    shown = run_sensor(SENSOR, system, *files, "--deadline-ms", "20000")
    found = [line.rpartition(" ")[0] for line in shown.splitlines()]
    assert found == [f"{file}: {LABELS[label]}" for file, label in zip(files, labels, strict=True)]


@pytest.mark.parametrize("sensor", [SENSOR, DEMO_SENSOR])
def test_the_python_sensors_import_nothing_of_ours(sensor: str) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(sensor).parent)!r}); import sensor; "
        "ours = {'splitplace', 'messages', 'services', 'edge_node', 'pydantic'}; "
        "print(sorted(ours & set(sys.modules)))"
    )
    assert printed(sys.executable, "-P", "-c", program).strip() == "[]"


def test_the_shell_sensor_prints_the_answer(system: System, tmp_path: Path) -> None:
    (file,), (label,) = pictures(tmp_path, 1)
    variables = {
        "PATH": "/usr/bin:/bin",
        "BROKER_HOST": system.broker.host,
        "BROKER_PORT": str(system.broker.port),
        "APPLICATION": "tiny",
    }
    answer = json.loads(printed("examples/sensor.sh", file, "9000", variables=variables))
    assert (answer["status"], answer["predictions"][0]["index"]) == ("answered", label)


def test_commands_say_when_there_is_no_broker(tmp_path: Path) -> None:
    nobody = f"mqtt://127.0.0.1:{free_port()}"
    files, _ = pictures(tmp_path, 1)
    for command in (["status"], ["submit", *files, "--app", "tiny"], ["watch"]):
        shown = run(*command, "--broker", nobody)
        assert (shown.returncode, nobody in shown.stderr) == (5, True), shown.stderr
    shown = run("doctor", "--broker", nobody)
    assert (shown.returncode, "fail broker" in shown.stdout) == (1, True)


def test_submit_says_when_there_is_no_gateway(broker_url: str, tmp_path: Path) -> None:
    files, _ = pictures(tmp_path, 1)
    shown = run("submit", *files, "--app", "tiny", "--broker", broker_url)
    assert (shown.returncode, "no gateway runs" in shown.stderr) == (5, True)


def test_status_names_missing_services(broker_url: str) -> None:
    shown = run("status", "--broker", broker_url)
    assert shown.returncode == 1
    assert "missing: gateway, splitter, placer, resource-monitor, result-aggregator" in shown.stderr


def at(system: System) -> tuple[str, str]:
    """The flags that lead to the system."""
    return ("--broker", system.broker.url)
