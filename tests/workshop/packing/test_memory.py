"""The memory in a manifest is what fragments really take."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest

from splitplace.edge_node.stage.children import PrepareMemoryError
from splitplace.edge_node.stage.prepared import PreparedForms
from splitplace.edge_node.stage.preparer import Limits, Preparer
from splitplace.messages.application import Application, Fragment
from splitplace.messages.groupings import derived_fragment
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.pieces import PieceRun
from splitplace.messages.tensors import TensorSpec
from splitplace.policies.memory import described_bytes, is_prepared, preparing_bytes
from splitplace.workshop.packing import memory
from splitplace.workshop.packing.memory import with_memory
from splitplace.workshop.packing.packer import Heading, Packer
from splitplace.workshop.pieces.chain import measured
from tests.support.small_pieces import noise, products_of_matrices

CLASSES = 768
PLENTY = 1 << 33


def alike(_: onnx.ModelProto, ends: Sequence[int]) -> list[float]:
    """Stands for a clock."""
    return [0.5] * (len(ends) + 1)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module")
def draft(pieces: Path) -> Application:
    """36 MiB of weights, whole and in three stages; two are too small to be prepared."""
    spec = TensorSpec(dtype="float32", shape=noise(1).shape[1:])
    heading = Heading("products", "Products", tuple(map(str, range(CLASSES))), spec)
    packer = Packer(heading, pieces, 4)
    network = measured(products_of_matrices(), alike)
    places = [network.places[number].tensors for number in (3, 20)]
    packer.add_measured("whole", network, places)
    packer.add_single("whole", "whole")
    packer.add_chain("layer", "whole", places, 4)
    return packer.draft()


@pytest.fixture(scope="module")
def application(draft: Application, pieces: Path) -> Application:
    return with_memory(draft, pieces)


@pytest.fixture
def preparer(pieces: Path, tmp_path: Path) -> Iterator[Preparer]:
    made = Preparer(pieces, PreparedForms(tmp_path, PLENTY), max_tensor_bytes=PLENTY)
    yield made
    made.close()


def test_every_stage_is_measured_as_nodes_load_it(application: Application) -> None:
    kinds = {is_prepared(fragment) for fragment in application.fragments}
    assert kinds == {True, False}
    for fragment in application.fragments:
        assert fragment.memory is not None
        assert (fragment.memory.preparing_bytes > fragment.weight_bytes) == is_prepared(fragment)
        assert (fragment.memory.loaded_bytes > fragment.weight_bytes) != is_prepared(fragment)


def test_a_node_needs_no_more_than_was_promised(application: Application, preparer: Preparer) -> None:
    for fragment in application.fragments:
        stage, limits = application.stage_of(fragment), Limits(max(promised(fragment)))
        if is_prepared(fragment):
            taken = preparer.prepare(stage, [4], limits).memory
        else:
            taken = preparer.measure_joined(stage, [4], Limits(PLENTY))
        assert taken.runs[-1].private_bytes <= described_bytes(fragment)
        assert taken.loading_bytes <= described_bytes(fragment)


def test_half_of_what_was_promised_does_not_suffice(application: Application, preparer: Preparer) -> None:
    largest = max(application.fragments, key=preparing_bytes)
    with pytest.raises(PrepareMemoryError):
        preparer.prepare(application.stage_of(largest), [4], Limits(preparing_bytes(largest) // 2))


def test_what_is_foreseen_of_another_grouping_holds_there(
    application: Application, preparer: Preparer
) -> None:
    named = application.chain("whole")
    known = {(each.first, each.end) for each in application.fragments}
    runs = [(0, end) for end in range(2, len(named.costs)) if (0, end) not in known]
    other = derived_fragment(application, PieceRun(chain="whole", first=0, end=runs[-1][1]))
    assert is_prepared(other)
    taken = preparer.prepare(application.stage_of(other), [4], Limits(preparing_bytes(other)))
    assert taken.memory.runs[-1].private_bytes <= described_bytes(other) < taken.mapped_bytes


def test_what_cannot_be_measured_keeps_no_figure_and_is_named(
    draft: Application, pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_ANY_BYTES", MEBIBYTE // 4)
    told: list[str] = []
    found = with_memory(draft, pieces, told.append)
    assert all(fragment.memory is None for fragment in found.fragments)
    assert sum("was not measured" in line for line in told) == len(found.fragments)


def promised(fragment: Fragment) -> tuple[int, int]:
    return preparing_bytes(fragment), described_bytes(fragment)
