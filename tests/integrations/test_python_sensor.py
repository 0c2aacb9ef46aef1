"""The Python sensor says in words what was found in a file, whatever the kind of the answer."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SENSOR = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "sensor.py"), run_name="sensor")
CAT = {"label": "cat", "index": 3, "confidence": 0.875}


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (None, "nothing: NaN or infinity"),
        ({"kind": "classification", **CAT, "top": []}, "cat 88%"),
        (CAT, "cat 88%"),
        (
            {"kind": "detection", "objects": [{**CAT, "box": [1.2, 3, 40.6, 5]}] * 2},
            ", ".join(["cat 88% at 1 3 41 5"] * 2),
        ),
        ({"kind": "detection", "objects": []}, "no object"),
        ({"kind": "multi-label", "labels": [CAT, {**CAT, "label": "dog"}]}, "cat 88%, dog 88%"),
        ({"kind": "multi-label", "labels": []}, "no label"),
        (
            {"kind": "segmentation", "png": "", "regions": [{"label": "road", "index": 1, "share": 0.5}]},
            "road 50%",
        ),
        ({"kind": "embedding", "values": [0.1, 0.2]}, "a vector of 2 values"),
        ({"kind": "sequence", "text": "HELLO", "confidence": 0.9}, "HELLO"),
        (
            {"kind": "tensors", "tensors": [{"name": "y", "dtype": "float32", "shape": [1, 4], "data": ""}]},
            "y float32[1, 4]",
        ),
    ],
)
def test_each_kind_of_answer_is_told_in_words(prediction: dict[str, Any] | None, words: str) -> None:
    assert SENSOR["words"](prediction) == words


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: files"),
        (["no-such-photo.jpg"], "no-such-photo.jpg: no such file"),
    ],
)
def test_what_cannot_be_sent_is_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        SENSOR["parse"](arguments)
    assert complaint in capsys.readouterr().err
