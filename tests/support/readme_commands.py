"""Types the README's commands for a secured system, word for word, into empty homes; in a network of its own.

    python -m tests.support.readme_commands FOLDER

Each home stands for a machine. Prints JSON: what sensor and camera were answered, and the online nodes.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import block_until
from tests.support.whole_system import START_S

ROOT = Path(__file__).parents[2]
PICTURE = str(ROOT / "examples" / "images" / "digit-7-3.png")


def typed() -> list[list[str]]:
    """The commands of the README's block about securing, without their comments."""
    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "secure init" in block]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@dataclass(frozen=True, slots=True)
class Machine:
    """A home, with nothing in it at first."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a user who has just installed SplitPlace."""
        search = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return {"HOME": str(self.home), "PATH": search, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def expanded(self, word: str) -> str:
        """Put the home in the place of a tilde, as a shell does."""
        return str(self.home / word.removeprefix("~/")) if word.startswith("~/") else word

    def run(self, words: Sequence[str]) -> str:
        """Run a command to its end; return what it prints."""
        self.home.mkdir(exist_ok=True)
        done = subprocess.run(
            words,
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def running(self, words: Sequence[str]) -> Iterator[Path]:
        """Run a command until the context ends; yield its log."""
        self.home.mkdir(exist_ok=True)
        log = self.home / f"{words[1]}.log"
        with (
            log.open("w") as writing,
            subprocess.Popen(
                words, cwd=self.home, env=self.environment, stdout=writing, stderr=subprocess.STDOUT
            ) as process,
        ):
            try:
                yield log
                assert process.poll() is None, log.read_text()
            finally:
                process.terminate()


def follow(folder: Path) -> dict[str, list[str]]:
    """Type all commands; return what sensor and camera are answered, and the online nodes."""
    init, broker, up, adding_nodes, adding_sensors, camera = typed()
    hub = Machine(folder / "hub")
    hub.run(init)
    pictures = hub.home / "pictures"
    pictures.mkdir()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(hub.running(broker))
        block_until(lambda: "mosquitto broker on mqtts" in log.read_text())
        stack.enter_context(hub.running(up))
        for name, shown in zip(adding_nodes[4:], hub.run(adding_nodes).splitlines(), strict=True):
            stack.enter_context(Machine(folder / name).running(shlex.split(shown)))
        written = [line.rpartition(" ")[2] for line in hub.run(adding_sensors).splitlines()]
        credentials = dict(zip(adding_sensors[4:], written, strict=True))
        submit = ("splitplace", "submit", PICTURE, "--app", "mnist", "--deadline", "5s", "--json")
        answers: list[dict[str, list[dict[str, str]]]] = []

        def is_answered() -> bool:
            with contextlib.suppress(AssertionError):  # no node has joined yet
                answers.append(json.loads(hub.run((*submit, "--credentials", credentials["door"]))))
            return bool(answers)

        def online() -> list[str]:
            nodes = json.loads(hub.run(("splitplace", "status", "--json")))["nodes"]
            return sorted(node["name"] for node in nodes if node["online"])

        block_until(is_answered, START_S)
        block_until(lambda: len(online()) == len(adding_nodes[4:]), START_S)
        shutil.copy(PICTURE, pictures)
        log = stack.enter_context(hub.running([hub.expanded(word) for word in camera]))
        block_until(lambda: " ms" in log.read_text(), START_S)
        return {
            "sensor": [each["label"] for each in answers[0]["predictions"]],
            "camera": [line for line in log.read_text().splitlines() if Path(PICTURE).name in line],
            "nodes": online(),
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(follow(Path(sys.argv[1]))))
