"""What a service has learnt, in a file."""

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from splitplace.storage import state_file as memory
from splitplace.storage.state_file import StateFile


class Counter:
    """A learner of one number."""

    def __init__(self) -> None:
        self.count = 0

    def state(self) -> Mapping[str, JsonValue]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        self.count = int(str(state["count"]))


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"correction": {}}', "\x00"])
def test_a_broken_memory_file_is_passed_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "counter.json"
    assert memory.load(path) == {}
    path.write_text(content)
    assert memory.load(path) == {}


def test_memory_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "new" / "counter.json"
    memory.save(path, {"correction": {"toy": {"whole": 1.5}}})
    memory.save(path, {"correction": {"toy": {"whole": 1.25}}})
    assert memory.load(path) == {"correction": {"toy": {"whole": 1.25}}}
    assert [file.name for file in path.parent.iterdir()] == ["counter.json"]


async def test_a_learner_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    first = Counter()
    kept = StateFile(tmp_path / "counter.json", first)
    first.count = 3
    await kept.save()
    second = Counter()
    await StateFile(tmp_path / "counter.json", second).restore()
    assert second.count == 3


async def test_a_learner_with_no_usable_memory_of_its_own_begins_with_the_warm_start(tmp_path: Path) -> None:
    memory.save(tmp_path / "counter.json", {"count": "many"})
    memory.save(tmp_path / "elsewhere.json", {"count": 5})
    learner = Counter()
    await StateFile(tmp_path / "counter.json", learner).restore(tmp_path / "elsewhere.json")
    assert learner.count == 5


async def test_what_is_saved_already_is_not_written_again(tmp_path: Path) -> None:
    learner = Counter()
    kept = StateFile(tmp_path / "counter.json", learner)
    await kept.save()
    assert not (tmp_path / "counter.json").exists()
    learner.count = 1
    await kept.save()
    (tmp_path / "counter.json").unlink()
    await kept.save()
    assert not (tmp_path / "counter.json").exists()


async def test_a_disk_that_refuses_is_tried_again_the_next_time(tmp_path: Path) -> None:
    learner = Counter()
    blocked = tmp_path / "folder"
    blocked.write_text("a file where a folder should be")
    kept = StateFile(blocked / "counter.json", learner)
    learner.count = 1
    await kept.save()
    blocked.unlink()
    await kept.save()
    assert memory.load(blocked / "counter.json") == {"count": 1}


async def test_a_disk_that_stays_full_is_said_once_and_so_is_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learner = Counter()
    kept = StateFile(tmp_path / "counter.json", learner)
    learner.count = 1

    def full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(memory, "replace_file", full)
        for _ in range(10):
            await kept.save()
        assert "No space left on device" in kept.trouble
    await kept.save()
    assert kept.trouble == ""
    assert len(caplog.records) == 2
    assert memory.load(tmp_path / "counter.json") == {"count": 1}


async def test_a_read_only_disk_is_no_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    await StateFile(tmp_path / "state" / "counter.json", Counter()).restore()


async def test_broken_files_that_are_kept_do_not_grow_in_number(tmp_path: Path) -> None:
    path = tmp_path / "counter.json"
    for _ in range(10):
        path.write_text("{")
        await StateFile(path, Counter()).restore()
    assert names_in(tmp_path) == [
        "counter.json.unusable",
        "counter.json.unusable-2",
        "counter.json.unusable-3",
    ]
