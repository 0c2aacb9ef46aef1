"""Stages are prepared by a child process, whose ways to fail all end in a clear error."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from splitplace.edge_node.graph_check import GraphRefusedError
from splitplace.edge_node.stage.body import PieceError
from splitplace.edge_node.stage.child import OUT_OF_MEMORY, REFUSED
from splitplace.edge_node.stage.children import PrepareError, PrepareKilledError, PrepareMemoryError
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.prepare import MODEL
from splitplace.edge_node.stage.prepared import FormTooLargeError, PreparedForms
from splitplace.edge_node.stage.preparer import MEASURE, PREPARE, Limits, Preparer
from splitplace.edge_node.stage.session import joined_session, prepared_session
from splitplace.workshop.pieces.chain import write_files
from splitplace.workshop.pieces.cut import cut_into_pieces
from tests.support.small_pieces import Written, answers, noise, products_of_matrices, written_pieces
from tests.support.waiting import pass_time

PLENTY = 1 << 30
FREELY = Limits(PLENTY)
ENDLESS = "import threading; threading.Event().wait()"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written_pieces(tmp_path_factory.mktemp("pieces"))


@pytest.fixture(autouse=True)
def made() -> Iterator[list[Preparer]]:
    """Close all preparers at the end."""
    opened.clear()
    yield opened
    for each in opened:
        each.close()


opened: list[Preparer] = []


def preparer(
    written: Written,
    forms: Path,
    *command: str,
    measure: tuple[str, ...] = MEASURE,
    disk_bytes: int = PLENTY,
    max_tensor_bytes: int = PLENTY,
) -> Preparer:
    ours = Preparer(
        written.folder,
        PreparedForms(forms, disk_bytes),
        max_tensor_bytes=max_tensor_bytes,
        prepare=command or PREPARE,
        measure=measure,
    )
    opened.append(ours)
    return ours


def python(program: str) -> tuple[str, ...]:
    """A child that does something else than preparing."""
    return (sys.executable, "-c", program)


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3)])
def test_prepared_stages_answer_bit_for_bit_as_joined_ones(
    written: Written, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    ours = preparer(written, tmp_path)
    prepared = joined = {"images": noise(3)}
    for stage in written.cut.chain.stages(cuts):
        form = ours.prepare(stage, [1], FREELY)
        prepared = prepared_session(stage, form.model).run(prepared)
        joined = joined_session(stage, joined_from(written.folder, stage), written.folder).run(joined)
    assert np.array_equal(prepared["logits"], joined["logits"])
    if not cuts:
        assert np.array_equal(prepared["logits"], answers(written.model, noise(3)))


def test_a_stage_is_prepared_once(written: Written, tmp_path: Path) -> None:
    first = preparer(written, tmp_path).prepare(written.whole, [1], FREELY)
    again = preparer(written, tmp_path).prepare(written.whole, [1], FREELY)
    assert (first.was_there, again.was_there) == (False, True)
    assert first.model == again.model
    assert first.peak_bytes > again.peak_bytes == 0


def test_a_torn_form_is_made_anew(written: Written, tmp_path: Path) -> None:
    form = preparer(written, tmp_path).prepare(written.whole, [1], FREELY)
    weights = form.model.with_name("weights")
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert not preparer(written, tmp_path).prepare(written.whole, [1], FREELY).was_there
    assert weights.read_bytes() == content


def test_a_damaged_piece_is_refused_before_a_child_starts(tmp_path: Path) -> None:
    here = written_pieces(tmp_path / "pieces")
    (tmp_path / "pieces" / str(here.whole.pieces[0].weights)).unlink()
    ours = preparer(here, tmp_path / "forms", *python("raise SystemExit('started')"))
    with pytest.raises(PieceError, match="is missing"):
        ours.prepare(here.whole, [1], FREELY)


def test_a_stage_with_a_tensor_beyond_the_limit_is_refused_before_a_child_starts(
    written: Written, tmp_path: Path
) -> None:
    ours = preparer(written, tmp_path, *python("raise SystemExit(9)"), max_tensor_bytes=100)
    with pytest.raises(GraphRefusedError, match="the limit is 100"):
        ours.prepare(written.whole, [1], FREELY)


def test_a_child_that_may_not_use_enough_memory_says_so(tmp_path: Path) -> None:
    here = written_pieces(tmp_path / "pieces", layers=12)
    # Libraries may also crash when they are refused memory.
    said = r"needs more than the 0 MiB|ended by signal (6|11), .* than the 0 MiB that it may use"
    with pytest.raises((PrepareMemoryError, PrepareKilledError), match=said):
        preparer(here, tmp_path / "forms").prepare(here.whole, [1], Limits(1))
    assert list((tmp_path / "forms").iterdir()) == []


@pytest.mark.parametrize(
    ("program", "kind", "reason"),
    [
        (f"raise SystemExit({OUT_OF_MEMORY})", PrepareMemoryError, "needs more than the 1024 MiB"),
        ("import os; os.kill(os.getpid(), 9)", PrepareKilledError, "ended by signal 9, most likely because"),
        (
            f"import sys; print('no such operator', file=sys.stderr); sys.exit({REFUSED})",
            PrepareError,
            "no such",
        ),
        ("raise SystemExit(3)", PrepareError, r"failed \(3\): it gave no reason"),
        ("pass", PrepareError, "wrote no model"),
    ],
)
def test_a_child_that_ends_badly_is_a_clear_error_and_leaves_nothing(
    written: Written, tmp_path: Path, program: str, kind: type[PrepareError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        preparer(written, tmp_path, *python(program)).prepare(written.whole, [1], FREELY)
    assert list(tmp_path.iterdir()) == []


def children() -> set[psutil.Process]:
    """Return the children of this process; tests before may have left helpers of multiprocessing."""
    return set(psutil.Process(os.getpid()).children())


def test_a_child_that_takes_too_long_is_killed(written: Written, tmp_path: Path) -> None:
    before = children()
    ours = preparer(written, tmp_path, *python(ENDLESS))
    with pytest.raises(PrepareKilledError, match=r"took longer than 0\.2 s"):
        ours.prepare(written.whole, [1], Limits(PLENTY, timeout_s=0.2))
    assert children() <= before


def test_what_onnx_runtime_refuses_is_told_with_its_reason(written: Written, tmp_path: Path) -> None:
    stage = written.whole.model_copy(update={"ir_version": 99})
    with pytest.raises(PrepareError, match="IR version"):
        preparer(written, tmp_path).prepare(stage, [1], FREELY)


def test_the_child_imports_no_more_than_it_needs() -> None:
    script = (
        "import sys, splitplace.edge_node.stage.prepare, splitplace.edge_node.stage.measure\n"
        "print({'pydantic', 'asyncio', 'paho', 'onnx'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def products(folder: Path) -> Written:
    """Products with 36 MiB of matrices, in one piece."""
    cut = cut_into_pieces(model := products_of_matrices(), [])
    write_files(folder, cut)
    return Written(model, cut, folder)


def test_a_plain_form_takes_a_fraction_of_the_memory_and_gives_the_same_answers(tmp_path: Path) -> None:
    here = products(tmp_path / "pieces")
    images = noise(3)
    loaded = {}
    for packed in (True, False):
        ours = preparer(here, tmp_path / f"forms-{packed}")
        form = ours.prepare(here.whole, [1], Limits(PLENTY, packed=packed))
        assert form.packed == packed
        found = ours.find(here.whole, [1])
        assert found is not None
        assert found.packed == packed
        (output,) = prepared_session(here.whole, form.model, packed=packed).run({"images": images}).values()
        np.testing.assert_allclose(output, answers(here.model, images), rtol=1e-4, atol=1e-4)
        loaded[packed] = form.memory.loaded_bytes
        if not packed:
            again = ours.prepare(here.whole, [8], Limits(PLENTY))
            assert not again.packed, "it is measured as it was made"
    weights = sum(piece.weights_bytes for piece in here.cut.chain.pieces)
    assert loaded[False] < weights / 4, "the session has no copy of them"
    with pytest.raises(PrepareMemoryError):
        preparer(here, tmp_path / "packed").prepare(here.whole, [1], Limits(weights // 2))
    small = Limits(weights // 2, packed=False)
    assert not preparer(here, tmp_path / "plain").prepare(here.whole, [1], small).packed


def test_a_form_is_measured_for_each_size_of_micro_batch(written: Written, tmp_path: Path) -> None:
    memory = preparer(written, tmp_path).prepare(written.whole, [4, 2], FREELY).memory
    assert [run.micro_batch for run in memory.runs] == [1, 2, 4]
    figures = [run.private_bytes for run in memory.runs]
    assert figures == sorted(figures)
    assert 0 < memory.loaded_bytes <= memory.loading_bytes
    assert all(run.milliseconds > 0 for run in memory.runs)


def test_a_form_without_the_sizes_of_a_new_variant_is_measured_again_and_not_prepared(
    written: Written, tmp_path: Path
) -> None:
    first = preparer(written, tmp_path).prepare(written.whole, [2], FREELY)
    ours = preparer(written, tmp_path, *python("raise SystemExit('prepared again')"))
    assert ours.find(written.whole, [8]) is None
    again = ours.prepare(written.whole, [8], FREELY)
    assert (again.model, again.peak_bytes) == (first.model, 0)
    assert [run.micro_batch for run in again.memory.runs] == [1, 8]
    assert ours.find(written.whole, [1, 2, 8]) is not None


def test_a_form_that_cannot_be_loaded_is_not_kept(written: Written, tmp_path: Path) -> None:
    torn = python(f"import sys; open(sys.argv[5] + '/{MODEL}', 'wb').write(b'no model')")
    with pytest.raises(PrepareError, match="cannot be loaded"):
        preparer(written, tmp_path, *torn).prepare(written.whole, [1], FREELY)
    assert list(tmp_path.iterdir()) == []


def test_a_form_that_ends_its_process_when_it_is_run_does_not_end_the_node(
    written: Written, tmp_path: Path
) -> None:
    ours = preparer(written, tmp_path, measure=python("import os; os.kill(os.getpid(), 11)"))
    with pytest.raises(PrepareKilledError, match="signal 11"):
        ours.prepare(written.whole, [1], FREELY)
    assert list(tmp_path.iterdir()) == []


def test_a_form_that_the_disk_has_no_room_for_is_refused_while_it_is_written(tmp_path: Path) -> None:
    here = written_pieces(tmp_path / "pieces", layers=12)
    ours = preparer(here, tmp_path / "forms", disk_bytes=20_000)
    with pytest.raises(FormTooLargeError, match="raise fragment_store_mb"):
        ours.prepare(here.whole, [1], FREELY)
    assert list((tmp_path / "forms").iterdir()) == []


def test_closing_ends_the_child_and_refuses_what_comes_later(written: Written, tmp_path: Path) -> None:
    before = children()
    ours = preparer(written, tmp_path, *python(ENDLESS))
    waiting = ours.begin(written.whole, [1], FREELY)
    while not children() - before:
        assert not waiting.done()
        pass_time(0.01)
    ours.close()
    with pytest.raises(PrepareError, match="the node is stopping"):
        waiting.result(60)
    with pytest.raises(PrepareError, match="the node is stopping"):
        ours.prepare(written.whole, [1], FREELY)
    assert children() <= before
    assert list(tmp_path.iterdir()) == []


def test_stages_are_prepared_one_after_the_other(written: Written, tmp_path: Path) -> None:
    once = (
        "import os, sys\n"
        f"lock = {str(tmp_path / 'lock')!r}\n"
        "os.close(os.open(lock, os.O_CREAT | os.O_EXCL))\n"
        "from splitplace.edge_node.stage.prepare import main\n"
        "main()\n"
        "os.unlink(lock)\n"
    )
    ours = preparer(written, tmp_path / "forms", *python(once))
    stages = written.cut.chain.stages((1, 2, 3))
    waiting = [ours.begin(stage, [1], FREELY) for stage in stages]
    assert [each.result(60).was_there for each in waiting] == [False] * 4


_PARENT = """
import sys
from pathlib import Path
from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import Limits, Preparer
from splitplace.messages.pieces import ChainStage
pieces, forms, stage, child = sys.argv[1:]
preparer = Preparer(Path(pieces), PreparedForms(Path(forms), 1 << 30), max_tensor_bytes=1 << 30,
                    prepare=(sys.executable, "-c", child))
preparer.begin(ChainStage.model_validate_json(stage), [1], Limits(1 << 30)).result()
"""
_SLOW_CHILD = """
import sys, threading
from pathlib import Path
from splitplace.edge_node.stage.child import end_with
end_with(int(sys.argv[1]))
(Path(sys.argv[5]) / "weights").write_bytes(bytes(1000))
print("half", file=sys.stderr)
threading.Event().wait()
"""


def test_a_node_that_is_killed_while_it_prepares_leaves_no_child_and_no_file(
    written: Written, tmp_path: Path
) -> None:
    stage = written.whole.model_dump_json()
    command = [sys.executable, "-c", _PARENT, str(written.folder), str(tmp_path), stage, _SLOW_CHILD]
    with subprocess.Popen(command) as node:
        while not list(tmp_path.glob("*.partial/weights")):
            assert node.poll() is None
            pass_time(0.01)
        (child,) = psutil.Process(node.pid).children()
        node.kill()
    child.wait(60)
    PreparedForms(tmp_path, PLENTY)
    assert list(tmp_path.iterdir()) == []


def test_the_thread_that_starts_children_lives_as_long_as_the_preparer(
    written: Written, tmp_path: Path
) -> None:
    """The kernel ends a child with the thread that started it."""
    ours = preparer(written, tmp_path)
    results = []
    asking = threading.Thread(target=lambda: results.append(ours.begin(written.whole, [1], FREELY)))
    asking.start()
    asking.join()
    assert not results[0].result(60).was_there
