"""The network that nodes measure themselves with."""

from pathlib import Path

from splitplace.edge_node.benchmark import REFERENCE_FILE, REFERENCE_FLOPS, measure_score
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.recipes.reference_network import main, reference_network


def test_the_shipped_file_is_what_the_command_makes(tmp_path: Path) -> None:
    assert main(["--output", str(tmp_path / "again.onnx")]) == 0
    assert (tmp_path / "again.onnx").read_bytes() == REFERENCE_FILE.read_bytes()
    assert REFERENCE_FILE.read_bytes() == file_content(reference_network())


def test_its_work_is_the_one_that_scores_are_computed_from() -> None:
    assert Graph(reference_network()).flops_per_image == REFERENCE_FLOPS


def test_a_score_is_plausible_for_one_thread_of_any_machine() -> None:
    assert 0.01 < measure_score(0.05) < 2000
