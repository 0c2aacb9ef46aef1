"""Files in the forms that real ones have are added, or refused in one line that says what helps."""

from pathlib import Path

import onnx
import pytest

from splitplace.storage.model_store import ModelStore
from tests.support.commands import exit_code
from tests.support.network_cases import CASES

ACCURACY = ("--accuracy", "0.5")
ADDED = "added"


@pytest.mark.parametrize(
    ("case", "flags", "outcome"),
    [
        ("softmax_last", ACCURACY, ADDED),
        ("softmax_then_identity", ACCURACY, ADDED),
        ("sigmoid_last", ACCURACY, ADDED),
        ("sigmoid_last", ("--kind", "multi-label", *ACCURACY), ADDED),
        ("softmax_last", ("--kind", "multi-label", *ACCURACY), "one label is right"),
        ("opset_11", ACCURACY, ADDED),
        ("free_sides", (*ACCURACY, "--input", "3x16x16"), ADDED),
        ("multiples_of_64", ACCURACY, "3x224x224 is taken (--input says another)"),
        ("multiples_of_64", (*ACCURACY, "--input", "3x64x64"), ADDED),
        ("weights_in_constants", ACCURACY, ADDED),
        ("float16", ACCURACY, ADDED),
        ("map_output", ACCURACY, "no classifier"),
        ("map_output", ("--kind", "segmentation"), ADDED),
        ("map_output", ("--kind", "tensors"), ADDED),
        ("map_output", ("--kind", "embedding"), ADDED),
        ("map_output", ("--kind", "detection"), "a detector gives"),
        ("two_outputs", ACCURACY, "choose one with --output"),
        ("two_outputs", (*ACCURACY, "--output", "y"), ADDED),
        ("long_skip", ACCURACY, ADDED),
        ("int_tokens", ACCURACY, ADDED),
    ],
)
def test_a_network_is_added_or_refused_in_one_line(
    case: str,
    flags: tuple[str, ...],
    outcome: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "case.onnx"
    onnx.save_model(CASES[case](), file)
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    store = tmp_path / "store"
    labels = ("--labels", str(tmp_path / "labels.txt"))
    code = exit_code("models", "add", file, *labels, *flags, "--store", store, "--stages", "2")
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("case: ")]
    if outcome == ADDED:
        assert (code, said) == (0, [])
        assert ModelStore(store).application("case").variants
    else:
        assert code != 0
        (line,) = said
        assert outcome in line
        assert not (store / "case").exists()
