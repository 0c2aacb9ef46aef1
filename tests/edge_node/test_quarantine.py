"""A fragment that ended the process is not run again at once, and each time it waits longer."""

from pathlib import Path

import pytest

from splitplace.edge_node.quarantine import ASIDE_MS, FILE, MAX_FRAGMENTS, Quarantine

FRAGMENT, OTHER = "a" * 64, "b" * 64


class Node:
    """Restarts a node's quarantine on its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = 0.0
        self.restart()

    def restart(self) -> None:
        self.quarantine = Quarantine(self.folder, lambda: self.now_ms)

    @property
    def refuses(self) -> bool:
        return self.quarantine.refusal(FRAGMENT) is not None

    def crash_in(self, fragment: str) -> None:
        self.quarantine.begin(fragment)
        self.restart()

    def refusals(self, fragment: str, crashes: int) -> list[bool]:
        found = []
        for _ in range(crashes):
            self.crash_in(fragment)
            found.append(self.refuses)
        return found


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_fragment_that_hung_waits_a_minute_and_after_the_second_time_an_hour(node: Node) -> None:
    for aside_ms in (*ASIDE_MS[1:], ASIDE_MS[-1]):
        node.quarantine.blame(FRAGMENT, "it ran for 30 s")
        node.restart()
        refusal = node.quarantine.refusal(FRAGMENT)
        assert refusal is not None
        assert "it ran for 30 s" in refusal
        assert node.quarantine.refused() == (FRAGMENT,)
        assert node.quarantine.refusal(OTHER) is None
        node.now_ms += aside_ms
        assert not node.refuses


def test_a_run_that_succeeds_clears_a_fragment(node: Node) -> None:
    node.quarantine.blame(FRAGMENT, "it ran for 30 s")
    node.quarantine.begin(FRAGMENT)
    node.quarantine.end(FRAGMENT, ran=True)
    node.restart()
    assert not node.refuses


def test_a_failed_run_clears_nothing(node: Node) -> None:
    node.quarantine.blame(FRAGMENT, "it ran for 30 s")
    node.quarantine.begin(FRAGMENT)
    node.quarantine.end(FRAGMENT, ran=False)
    node.restart()
    assert node.refuses


def test_one_death_during_a_first_run_may_have_any_cause_two_in_a_row_count(node: Node) -> None:
    assert node.refusals(FRAGMENT, 2) == [False, True]
    assert "died" in (node.quarantine.refusal(FRAGMENT) or "")


def test_deaths_with_a_success_in_between_do_not_count(node: Node) -> None:
    for _ in range(3):
        node.crash_in(FRAGMENT)
        node.quarantine.begin(FRAGMENT)
        node.quarantine.end(FRAGMENT, ran=True)
    assert not node.refuses


def test_a_hang_in_a_first_run_counts_once(node: Node) -> None:
    node.quarantine.begin(FRAGMENT)
    node.quarantine.blame(FRAGMENT, "it ran for 30 s")
    node.restart()
    node.now_ms += ASIDE_MS[1]
    assert not node.refuses


@pytest.mark.parametrize("content", [b"", bytes(1000), b"[]", b'{"a": 1}', b'{"a": {"hangs": "x"}}', b"\xff"])
def test_a_file_that_makes_no_sense_is_ignored(node: Node, content: bytes) -> None:
    (node.folder / FILE).write_bytes(content)
    node.restart()
    assert node.quarantine.refused() == ()
    node.quarantine.blame(FRAGMENT, "it ran for 30 s")
    node.restart()
    assert node.refuses


def test_the_number_of_remembered_fragments_is_bounded(node: Node) -> None:
    for number in range(2 * MAX_FRAGMENTS):
        node.quarantine.blame(f"{number:064x}", "it ran for 30 s")
    assert len(node.quarantine.refused()) == MAX_FRAGMENTS


def test_without_a_disk_nothing_is_remembered_and_nothing_fails(node: Node) -> None:
    node.folder.rmdir()
    node.folder.touch()
    node.quarantine.begin(FRAGMENT)
    node.quarantine.end(FRAGMENT, ran=True)
    assert not node.refuses


def test_a_fragment_whose_preparation_was_killed_twice_is_put_aside_from_then_on(node: Node) -> None:
    node.now_ms = 5_000_000.0
    node.quarantine.suspect(FRAGMENT, "the preparation was ended by signal 9")
    assert node.quarantine.refusal(FRAGMENT) is None
    node.quarantine.suspect(FRAGMENT, "the preparation was ended by signal 9")
    assert "ended by signal 9" in (node.quarantine.refusal(FRAGMENT) or "")
    node.now_ms += ASIDE_MS[1]
    assert node.quarantine.refusal(FRAGMENT) is None
    node.quarantine.suspect(FRAGMENT, "the preparation was ended by signal 9")
    node.now_ms += ASIDE_MS[1]
    assert node.quarantine.refused() == (FRAGMENT,)
    node.restart()
    assert node.quarantine.refused() == (FRAGMENT,)
    node.now_ms += ASIDE_MS[2]
    assert node.quarantine.refused() == ()
