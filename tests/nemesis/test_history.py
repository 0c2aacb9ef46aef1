"""A history on disk says what was noted."""

from pathlib import Path

import pytest

from nemesis.history import FaultBegan, History, Note, from_line, read, to_line
from tests.nemesis.stories import heard, row, sent


@pytest.mark.parametrize(
    "record",
    [
        sent(),
        heard(),
        row(None),
        FaultBegan(at_s=1.0, number=1, fault="kill:kill", targets=("gateway", "n1"), detail="ends it"),
        Note(at_s=2.0, text="line\nbreak and küche"),
    ],
    ids=lambda record: type(record).__name__,
)
def test_every_record_comes_back_from_its_line(record: object) -> None:
    line = to_line(record)  # type: ignore[arg-type]
    assert "\n" not in line
    assert from_line(line) == record


def test_records_are_on_disk_at_once(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        history.note("one")
        history.add(sent())
        assert list(read(history.path.read_text(encoding="utf-8").splitlines())) == history.records
        assert history.records[0].at_s <= history.now_s


def test_an_unknown_kind_of_record_is_an_error() -> None:
    with pytest.raises(KeyError):
        from_line('{"kind": "Nonsense", "at_s": 1}')
