"""Prepared stages on disk: bounded, checked, whole or not there."""

from pathlib import Path

import pytest

from splitplace.edge_node.stage.memory import RunMemory, StageMemory
from splitplace.edge_node.stage.prepare import MODEL, WEIGHTS
from splitplace.edge_node.stage.prepared import FormTooLargeError, PreparedForms, key_of
from tests.support.small_pieces import written_pieces

KEYS = [f"{index:064x}" for index in range(4)]


def make(forms: PreparedForms, key: str, size: int = 1000, expected_bytes: int = 0) -> None:
    with forms.making(key, expected_bytes) as form:
        (form.folder / MODEL).write_bytes(b"model")
        (form.folder / WEIGHTS).write_bytes(bytes(size))


def test_a_form_is_found_again_also_by_a_later_process(tmp_path: Path) -> None:
    make(PreparedForms(tmp_path, 10_000), KEYS[0])
    found = PreparedForms(tmp_path, 10_000).find(KEYS[0])
    assert found is not None
    assert found.read_bytes() == b"model"


def test_a_form_that_was_not_made_is_not_found(tmp_path: Path) -> None:
    assert PreparedForms(tmp_path, 10_000).find(KEYS[0]) is None


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, "note.json"])
@pytest.mark.parametrize("damage", ["cut short", "changed", "gone", "empty"])
def test_a_torn_form_is_removed_and_can_be_made_anew(tmp_path: Path, name: str, damage: str) -> None:
    make(PreparedForms(tmp_path, 10_000), KEYS[0])
    path = tmp_path / KEYS[0] / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = {"cut short": content[:-1], "changed": b"!" + content[1:], "empty": b""}[damage]
        path.write_bytes(changed)
    forms = PreparedForms(tmp_path, 10_000)
    assert forms.find(KEYS[0]) is None
    make(forms, KEYS[0])
    assert forms.find(KEYS[0]) is not None


def test_a_form_that_changes_while_the_node_runs_is_found_out(tmp_path: Path) -> None:
    forms = PreparedForms(tmp_path, 10_000)
    make(forms, KEYS[0])
    assert forms.find(KEYS[0]) is not None
    (tmp_path / KEYS[0] / WEIGHTS).write_bytes(b"!" * 1000)
    assert forms.find(KEYS[0]) is None


def test_a_note_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    make(PreparedForms(tmp_path, 10_000), KEYS[0])
    note = tmp_path / KEYS[0] / "note.json"
    note.write_text(note.read_text().replace(WEIGHTS, "../secret"))
    (tmp_path / "secret").write_bytes(bytes(1000))
    assert PreparedForms(tmp_path, 10_000).find(KEYS[0]) is None


def test_a_form_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    forms = PreparedForms(tmp_path, 10_000)
    with pytest.raises(FileNotFoundError), forms.making(KEYS[0]) as form:
        (form.folder / "nowhere" / MODEL).write_bytes(b"half")
    assert forms.find(KEYS[0]) is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_unfinished_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{KEYS[0]}.partial").mkdir()
    (tmp_path / f"{KEYS[0]}.partial" / WEIGHTS).write_bytes(b"half")
    PreparedForms(tmp_path, 10_000)
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_forms_make_room(tmp_path: Path) -> None:
    forms = PreparedForms(tmp_path, 4000)
    for key in KEYS[:3]:
        make(forms, key)
    assert forms.find(KEYS[0]) is not None  # used last
    make(forms, KEYS[3])
    assert [forms.find(key) is not None for key in KEYS] == [True, False, True, True]
    assert forms.size_bytes <= 4000


def test_mapped_forms_stay(tmp_path: Path) -> None:
    forms = PreparedForms(tmp_path, 3000)
    make(forms, KEYS[0])
    make(forms, KEYS[1])
    forms.map(KEYS[0])
    make(forms, KEYS[2])
    assert [forms.find(key) is not None for key in KEYS[:3]] == [True, False, True]
    forms.unmap(KEYS[0])
    make(forms, KEYS[3], expected_bytes=2900)
    assert [forms.find(key) is not None for key in KEYS] == [False, False, False, True]


def test_room_is_made_before_a_form_is_written(tmp_path: Path) -> None:
    grown: list[int] = []
    forms = PreparedForms(tmp_path, 3000, grows=grown.append)
    make(forms, KEYS[0])
    make(forms, KEYS[1])
    with forms.making(KEYS[2], 1500) as form:
        assert forms.made() == (KEYS[1],)
        assert grown == [0, 0, 1500]
        (form.folder / MODEL).write_bytes(b"model")
    assert set(forms.made()) == {KEYS[1], KEYS[2]}


def test_a_form_that_does_not_fit_beside_those_that_are_mapped_is_refused_and_drives_none_out(
    tmp_path: Path,
) -> None:
    forms = PreparedForms(tmp_path, 4000)
    make(forms, KEYS[0])
    make(forms, KEYS[1])
    forms.map(KEYS[0])
    assert 2000 < forms.room_bytes < 3000
    with pytest.raises(FormTooLargeError, match="half"):
        make(forms, KEYS[2], size=3500)
    assert set(forms.made()) == {KEYS[0], KEYS[1]}
    assert len(list(tmp_path.iterdir())) == 2


def test_forms_that_nobody_maps_are_removed_for_others_who_need_the_disk(tmp_path: Path) -> None:
    forms = PreparedForms(tmp_path, 10_000)
    for key in KEYS:
        make(forms, key)
    forms.map(KEYS[0])
    assert 1000 <= forms.free(1) < 2000
    assert set(forms.made()) == {KEYS[0], KEYS[2], KEYS[3]}
    assert 2000 <= forms.free(100_000) < 4000
    assert forms.made() == (KEYS[0],)


def test_what_was_measured_of_a_form_is_found_again(tmp_path: Path) -> None:
    forms = PreparedForms(tmp_path, 10_000)
    make(forms, KEYS[0])
    assert forms.about(KEYS[1]) is None
    about = forms.about(KEYS[0])
    assert about is not None
    assert (about.memory, about.mapped_bytes) == (None, 1000)
    run = RunMemory(micro_batch=2, private_bytes=3, milliseconds=4.0)
    memory = StageMemory(loading_bytes=2, loaded_bytes=1, runs=(run,))
    forms.note_memory(KEYS[0], memory)
    assert forms.find(KEYS[0]) is not None
    later = PreparedForms(tmp_path, 10_000)
    found = later.about(KEYS[0])
    assert found is not None
    assert found.memory == memory
    assert later.find(KEYS[0]) is not None


def test_the_key_covers_pieces_head_runtime_and_processor(tmp_path: Path) -> None:
    chain = written_pieces(tmp_path).cut.chain
    stage = chain.stage(0, 2)
    others = [chain.stage(0, 3), chain.stage(1, 2), stage.model_copy(update={"ir_version": 9})]
    keys = {key_of(stage), key_of(stage, "another processor"), *map(key_of, others)}
    assert len(keys) == 5
    assert key_of(stage) == key_of(chain.stage(0, 2))
