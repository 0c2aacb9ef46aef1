"""Stages are prepared by a child process, whose ways to fail all end in a clear error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from splitplace.edge_node.graph_check import GraphRefusedError
from splitplace.edge_node.stage.body import PieceError
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.prepare import OUT_OF_MEMORY, REFUSED
from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import PREPARE, PrepareError, PrepareMemoryError, Preparer
from splitplace.edge_node.stage.session import joined_session, prepared_session
from tests.support.small_pieces import Written, answers, noise, written_pieces

PLENTY = 1 << 30


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written_pieces(tmp_path_factory.mktemp("pieces"))


def preparer(written: Written, forms: Path, *command: str) -> Preparer:
    return Preparer(
        written.folder,
        PreparedForms(forms, PLENTY),
        max_tensor_bytes=PLENTY,
        command=command or PREPARE,
    )


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
        form = ours.prepare(stage, memory_bytes=PLENTY)
        prepared = prepared_session(stage, form.model).run(prepared)
        joined = joined_session(stage, joined_from(written.folder, stage), written.folder).run(joined)
    assert np.array_equal(prepared["logits"], joined["logits"])
    if not cuts:
        assert np.array_equal(prepared["logits"], answers(written.model, noise(3)))


def test_a_stage_is_prepared_once(written: Written, tmp_path: Path) -> None:
    first = preparer(written, tmp_path).prepare(written.whole, memory_bytes=PLENTY)
    again = preparer(written, tmp_path).prepare(written.whole, memory_bytes=PLENTY)
    assert (first.was_there, again.was_there) == (False, True)
    assert first.model == again.model
    assert first.peak_bytes > again.peak_bytes == 0


def test_a_torn_form_is_made_anew(written: Written, tmp_path: Path) -> None:
    form = preparer(written, tmp_path).prepare(written.whole, memory_bytes=PLENTY)
    weights = form.model.with_name("weights")
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert not preparer(written, tmp_path).prepare(written.whole, memory_bytes=PLENTY).was_there
    assert weights.read_bytes() == content


def test_a_damaged_piece_is_refused_before_a_child_starts(tmp_path: Path) -> None:
    here = written_pieces(tmp_path / "pieces")
    (tmp_path / "pieces" / str(here.whole.pieces[0].weights)).unlink()
    ours = preparer(here, tmp_path / "forms", *python("raise SystemExit('started')"))
    with pytest.raises(PieceError, match="is missing"):
        ours.prepare(here.whole, memory_bytes=PLENTY)


def test_a_stage_with_a_tensor_beyond_the_limit_is_refused_before_a_child_starts(
    written: Written, tmp_path: Path
) -> None:
    forms = PreparedForms(tmp_path, PLENTY)
    ours = Preparer(written.folder, forms, max_tensor_bytes=100, command=python("raise SystemExit(9)"))
    with pytest.raises(GraphRefusedError, match="the limit is 100"):
        ours.prepare(written.whole, memory_bytes=PLENTY)


def test_a_child_that_may_not_use_enough_memory_says_so(tmp_path: Path) -> None:
    here = written_pieces(tmp_path / "pieces", layers=12)
    with pytest.raises(PrepareMemoryError, match="needs more than the 0 MiB"):
        preparer(here, tmp_path / "forms").prepare(here.whole, memory_bytes=1)
    assert list((tmp_path / "forms").iterdir()) == []


@pytest.mark.parametrize(
    ("program", "kind", "reason"),
    [
        (f"raise SystemExit({OUT_OF_MEMORY})", PrepareMemoryError, "needs more than the 1024 MiB"),
        ("import os; os.kill(os.getpid(), 9)", PrepareMemoryError, "ended by signal 9, most likely because"),
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
        preparer(written, tmp_path, *python(program)).prepare(written.whole, memory_bytes=PLENTY)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_takes_too_long_is_killed(written: Written, tmp_path: Path) -> None:
    ours = preparer(written, tmp_path, *python("import threading; threading.Event().wait()"))
    with pytest.raises(PrepareError, match=r"took longer than 0\.2 s"):
        ours.prepare(written.whole, memory_bytes=PLENTY, timeout_s=0.2)
    assert psutil.Process(os.getpid()).children() == []


def test_what_onnx_runtime_refuses_is_told_with_its_reason(written: Written, tmp_path: Path) -> None:
    stage = written.whole.model_copy(update={"ir_version": 99})
    with pytest.raises(PrepareError, match="IR version"):
        preparer(written, tmp_path).prepare(stage, memory_bytes=PLENTY)


def test_the_child_imports_no_more_than_it_needs() -> None:
    script = (
        "import sys, splitplace.edge_node.stage.prepare\n"
        "print({'pydantic', 'asyncio', 'paho', 'onnx'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
