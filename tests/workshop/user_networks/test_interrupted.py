"""`models add` that is killed goes on where it was, in the next run."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from splitplace.storage.exclusive import exclusive
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.workshop.packing.unfinished import MOST_UNFINISHED, unfinished
from tests.support.commands import exit_code, measure_quickly
from tests.support.small_pieces import small_convolutions

KILLED_AT = """
import os, signal, sys
import pytest
from splitplace.commands.main import main
from tests.support.commands import measure_quickly
patch = pytest.MonkeyPatch()
measure_quickly(patch)
patch.setattr("{function}", lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL))
main(sys.argv[1:])
"""
MEMORY = "splitplace.workshop.packing.memory._of_fragment"
TIMES = (
    "splitplace.workshop.user_networks.add.segment_milliseconds",
    "splitplace.workshop.packing.packer.reference_score",
    "splitplace.workshop.packing.description.time_runtimes",
)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user is, with a network, its labels, and pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLITPLACE_STATE_DIR", str(tmp_path / "state"))
    measure_quickly(monkeypatch)
    onnx.save_model(small_convolutions(), "net.onnx")
    count = small_convolutions().graph.output[0].type.tensor_type.shape.dim[1].dim_value
    names = [f"class-{number}" for number in range(count)]
    Path("labels.txt").write_text("\n".join(names))
    noise = np.random.default_rng(0)
    for name in names:
        Path("pictures", name).mkdir(parents=True)
        Image.fromarray(noise.integers(0, 255, (16, 16, 3), np.uint8)).save(f"pictures/{name}/0.png")
    return tmp_path


def words(*more: str) -> list[str]:
    """The command, with `--accuracy` unless it is given otherwise."""
    return ["models", "add", "net.onnx", "--labels", "labels.txt", *(more or ("--accuracy", "0.5"))]


def killed_at(function: str, *more: str) -> None:
    """Run the command in a process that is killed where it would call a function."""
    code = KILLED_AT.format(function=function)
    ended = subprocess.run([sys.executable, "-c", code, *words(*more)], check=False)
    assert ended.returncode == -9


def never(patch: pytest.MonkeyPatch, *functions: str) -> None:
    """Fail if one of these is called from now on."""

    def called(*_: object) -> None:
        raise AssertionError("measured again")

    for function in functions:
        patch.setattr(function, called)


def manifest(folder: Path) -> str:
    return (folder / "store" / "net" / "manifest.json").read_text()


def test_what_is_measured_already_is_not_measured_again(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at("splitplace.workshop.user_networks.add.compared")
    assert not (user / "state" / "store").exists()
    shutil.copytree(user / "state", user / "copy")
    never(monkeypatch, MEMORY, *TIMES)
    assert exit_code(*words()) == 0
    monkeypatch.setenv("SPLITPLACE_STATE_DIR", str(user / "copy"))
    assert exit_code(*words()) == 0
    assert manifest(user / "state") == manifest(user / "copy")
    assert all(
        fragment.memory is not None
        for fragment in ModelStore(user / "copy/store").application("net").fragments
    )


def test_a_run_goes_on_between_two_measurements(
    user: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    killed_at(MEMORY)
    never(monkeypatch, *TIMES)
    assert exit_code(*words()) == 0
    assert "going on where an earlier run was interrupted" in capfd.readouterr().err
    assert list((user / "state" / "unfinished").iterdir()) == []


def test_answers_to_labelled_pictures_are_kept(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at("splitplace.workshop.packing.packer.with_accuracies", "--data", "pictures")
    never(monkeypatch, MEMORY, *TIMES, "splitplace.workshop.packing.evaluation.variant_logits")
    assert exit_code(*words("--data", "pictures")) == 0
    assert ModelStore(user / "state/store").application("net").variant("whole").accuracy_images > 1


def test_another_network_is_measured_anew(user: Path) -> None:
    killed_at(MEMORY)
    (left,) = (user / "state" / "unfinished").iterdir()
    model = onnx.load_model("net.onnx")
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(weight), weight.name))
    onnx.save_model(model, "net.onnx")
    assert exit_code(*words()) == 0
    assert list((user / "state" / "unfinished").iterdir()) == [left]


def interrupted(root: Path, network: onnx.ModelProto, reason: BaseException) -> Path:
    """Begin with a network, and end for a reason. Return the folder of what is unfinished."""
    with contextlib.suppress(type(reason)), unfinished(root, network) as kept:
        begun = kept.pieces.parent
        raise reason
    return begun


def test_an_error_leaves_nothing_behind_unless_a_disk_refuses(tmp_path: Path) -> None:
    for reason in (KeyboardInterrupt(), OSError(28, "No space left on device"), StoreError(tmp_path, "")):
        assert interrupted(tmp_path, small_convolutions(), reason).is_dir()
    assert not interrupted(tmp_path, small_convolutions(), ValueError()).exists()


def test_where_nothing_can_be_kept_a_network_is_added_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with unfinished(tmp_path / "file" / "unfinished", small_convolutions()) as kept:
        assert kept.measured is None
        assert kept.pieces.is_dir()


def networks() -> Callable[[], onnx.ModelProto]:
    """A function that returns another network each time."""
    made = iter(range(100))

    def network() -> onnx.ModelProto:
        model = small_convolutions()
        model.producer_version = str(next(made))
        return model

    return network


def test_only_the_last_unfinished_networks_are_kept(tmp_path: Path) -> None:
    network, seen = networks(), []
    for number in range(MOST_UNFINISHED + 2):
        seen.append(interrupted(tmp_path, network(), KeyboardInterrupt()))
        os.utime(seen[-1] / "lock", (number, number))
    assert set(tmp_path.iterdir()) == set(seen[-MOST_UNFINISHED:])


def test_what_a_killed_run_had_half_removed_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "half" / "pieces").mkdir(parents=True)  # its lock is gone already
    network = networks()
    left = {interrupted(tmp_path, network(), KeyboardInterrupt()) for _ in range(2)}
    assert set(tmp_path.iterdir()) == left


def test_a_network_that_is_added_twice_at_once_shares_nothing(tmp_path: Path) -> None:
    with unfinished(tmp_path, small_convolutions()) as first:
        with unfinished(tmp_path, small_convolutions()) as second:
            assert second.measured is None
        assert first.pieces.parent.exists()
        with pytest.raises(BlockingIOError), exclusive(first.pieces.parent / "lock"):
            pass
