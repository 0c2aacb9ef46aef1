"""Wrong input of every kind ends a command with a sentence and the right exit code, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitplace.commands.main import main
from splitplace.commands.shared.output import cell, print_json
from splitplace.terminal import printable

NOBODY = ("--broker", "mqtt://127.0.0.1:1")
"""An address where nothing listens."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some files that are not what they seem."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLITPLACE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "picture.png").write_bytes(b"no picture")
    (tmp_path / "array.npy").write_bytes(b"no array")
    (tmp_path / "file").touch()
    (tmp_path / "large.png").write_bytes(bytes(9_000_000))
    return tmp_path


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard error; standard output stays empty."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert shown.out == ""
    return int(end.value.code or 0), " ".join(shown.err.replace("│", "").split())


@pytest.mark.parametrize("command", ["gateway", "node", "up", "status", "watch", "doctor"])
@pytest.mark.parametrize(
    "url",
    [
        "mqtt://host:99999",
        "mqtt://host:0",
        "mqtt://host:port",
        "mqtt://",
        "http://host",
        "mqtt://host/path",
        "mqtt://[::1",
        "mqtt://anna:secret@host:99999",
    ],
)
def test_a_broker_url_that_is_none_is_a_usage_error(
    command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = ended(capsys, command, "--broker", url)
    assert code == 2
    assert error.startswith("--broker: '")
    assert "is not a broker URL like mqtt://192.168.1.10:1883" in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("submit", "none.png", "--app", "a"), 2, "none.png: No such file or directory"),
        (("submit", "file", "--app", "a"), 2, "give pictures"),
        (("submit", "array.npy", "--app", "a"), 2, "array.npy is not a readable .npy array"),
        (("submit", "picture.png", "--app", "a/b"), 2, "cannot be the name of an application"),
        (("submit", "picture.png", "--app", "a", "--deadline", "soon"), 2, "is not a duration like 300ms"),
        (("submit", "picture.png", "--app", "a", "--deadline", "0"), 2, "longer than 0"),
        (("submit", "picture.png", "--app", "a", "--deadline", "99h"), 2, "--deadline: at most 24h"),
        (("submit", "picture.png", "--app", "a", "--labels", "x"), 2, "not a list of class numbers"),
        (("submit", "array.npy", "--app", "a", "--state", "s.npz", "--labels", "1"), 2, "--labels: networks"),
        (("submit", "picture.png", "--app", "a"), 5, "start one: splitplace broker"),
        (("status",), 5, "start one: splitplace broker"),
        (("watch",), 5, "start one: splitplace broker"),
        (("watch", "--record", "file/x"), 1, "file/x: cannot be written: Not a directory"),
        (("watch", "--seconds", "-1"), 2, "--seconds"),
        (("up", "--folder", "file"), 1, "file: is not a folder"),
        (("up", "--policy", "mab"), 2, "not of the form split+placement"),
        (("node", "--fragment-dir", "file"), 2, "file: is not a folder"),
        (("node", "--node", "a b"), 2, "--node: must be 1 to 64 letters"),
        (("node", "--codec", "lz4"), 2, "--codec"),
        (("node", "--memory-budget-mb", "much"), 2, "--memory-budget-mb"),
        (("node", "--memory-budget-mb", "-1"), 2, "--memory-budget-mb: must be more than 0"),
        (("gateway", "--journal", "state"), 1, "journal state"),
        (("gateway", "--journal", "large.png"), 1, "journal large.png: file is not a database"),
        (("splitter", "--store", "none"), 1, "none: is not a folder (choose another with --store)"),
        (("gateway", "--state-dir", ""), 2, "--state-dir: it is empty; name a folder or file"),
        (("gateway", "--state-dir="), 2, "--state-dir: it is empty"),
        (("gateway", "--journal", ""), 2, "--journal: it is empty"),
        (("models", "list", "--store", ""), 2, "--store: it is empty"),
        (("up", "--state-dir", ""), 2, "--state-dir: it is empty"),
    ],
)
def test_wrong_files_and_flags_are_explained(
    arguments: tuple[str, ...], code: int, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "state").mkdir()
    found, error = ended(capsys, *arguments, *NOBODY)
    assert (found, sentence in error) == (code, True), error


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("broker", "--port", "99999"), 2, "--port"),
        (("broker", "--folder", "file"), 1, "file: is not a folder"),
        (("replay", "none.jsonl", "--policy", "rule"), 1, "none.jsonl: No such file or directory"),
        (("replay", "picture.png", "--policy", "rule"), 1, "the log holds no task"),
        (("simulate", "--scenario", "none.json"), 2, "none.json: No such file or directory"),
        (("simulate", "--scenario", "picture.png"), 2, "picture.png: Invalid JSON"),
        (("simulate", "--hosts", "0"), 2, "hosts: must be at least 1"),
        (("experiments", "nothing"), 2, "no experiment 'nothing'"),
        (("models", "list", "--store", "none"), 1, "none: is not a folder"),
        (("models", "export", "mnist", "file/x.zip"), 1, "file/x.zip"),
        (("demo", "--store", "none"), 1, "none: is not a folder"),
    ],
)
def test_wrong_input_is_explained_without_a_broker(
    arguments: tuple[str, ...], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, error = ended(capsys, *arguments)
    assert (found, sentence in error) == (code, True), error


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("broker = \n", "is not a valid TOML file: Invalid value (at line 1, column 10)"),
        ('\nbroker = "mqtt://"\n', "splitplace.toml:2: broker: 'mqtt://' is not a broker URL"),
        ('# grace\ngrace_ms = "long"\n', "splitplace.toml:2: grace_ms: must be a number"),
    ],
)
def test_a_wrong_configuration_file_is_named_with_the_line(
    text: str, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "splitplace.toml").write_text(text)
    code, error = ended(capsys, "gateway")
    assert (code, sentence in error) == (2, True), error


@pytest.mark.parametrize("name", ["none.toml", "."])
def test_a_configuration_file_that_cannot_be_read_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPLITPLACE_CONFIG", name)
    code, error = ended(capsys, "status")
    assert (code, f"cannot read the configuration file {name}" in error) == (2, True), error


def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPLITPLACE_GRACE_MS", "long")
    code, error = ended(capsys, "gateway")
    assert (code, error.startswith("SPLITPLACE_GRACE_MS: must be")) == (2, True), error


def test_the_password_in_a_broker_url_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = ended(capsys, "status", "--broker", "mqtt://anna:secret@127.0.0.1:1")
    assert code == 5
    assert "mqtt://127.0.0.1:1" in error
    assert "secret" not in error
    assert "anna" not in error


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x9b31m", "a\rb", "\u202eevil", "\x00"])
def test_control_characters_never_reach_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text).isprintable()
    assert cell(text).plain.isprintable()
    print_json({"text": text}, indent=None)
    shown = capsys.readouterr().out.removesuffix("\n")
    assert shown.isprintable()
    assert shown.isascii()


def test_text_without_control_characters_is_printed_as_it_is() -> None:
    assert printable("Größe: 3 µs\n\t→ 猫") == "Größe: 3 µs\n\t→ 猫"


def test_numbers_that_json_does_not_know_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ms": float("nan"), "limit": float("inf")}, indent=None)
    assert capsys.readouterr().out == '{"ms": null, "limit": null}\n'


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("asyncapi",)])
def test_output_for_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            (sys.executable, "-m", "splitplace", *arguments), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, b"the disk is full: make room, or write to another one\n")


def test_a_reader_of_the_output_who_leaves_sees_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        (sys.executable, "-m", "splitplace", "asyncapi"), stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_terminal_of_another_alphabet_gets_question_marks_and_no_traceback(folder: Path) -> None:
    (folder / "\N{GREEK SMALL LETTER ALPHA}").mkdir()
    ended = subprocess.run(
        (sys.executable, "-m", "splitplace", "models", "list", "--store", "\N{GREEK SMALL LETTER ALPHA}"),
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"?" in ended.stdout
    assert ended.stdout.isascii()
