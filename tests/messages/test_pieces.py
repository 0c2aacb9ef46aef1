from itertools import pairwise

import pytest
from pydantic import ValidationError

from splitplace.messages.pieces import Chain, NamedTensor, OperatorSet, Piece
from splitplace.messages.tensors import TensorSpec


def chain(length: int = 3, **changes: object) -> Chain:
    fields = {
        "ir_version": 9,
        "opsets": (OperatorSet(domain="", version=20),),
        "pieces": tuple(Piece(graph=f"{index:064x}", graph_bytes=10) for index in range(length)),
        "bundles": tuple(
            (NamedTensor(name=f"t{index}", spec=TensorSpec(dtype="float32", shape=(index + 1,))),)
            for index in range(length + 1)
        ),
    }
    return Chain.model_validate(fields | changes)


def test_a_stage_is_a_run_of_pieces_between_two_bundles() -> None:
    stage = chain().stage(1, 3)
    assert [piece.graph[-1] for piece in stage.pieces] == ["1", "2"]
    assert (stage.inputs[0].name, stage.outputs[0].name) == ("t1", "t3")


def test_stages_follow_each_other_and_hold_every_piece_once() -> None:
    stages = chain(4).stages((1, 3))
    assert [len(stage.pieces) for stage in stages] == [1, 2, 1]
    assert all(before.outputs == after.inputs for before, after in pairwise(stages))


@pytest.mark.parametrize(("first", "end"), [(0, 4), (2, 2), (2, 1), (-1, 2)])
def test_a_run_that_does_not_exist_is_refused(first: int, end: int) -> None:
    with pytest.raises(ValueError, match="no pieces"):
        chain().stage(first, end)


def test_a_chain_has_a_bundle_more_than_pieces() -> None:
    with pytest.raises(ValidationError, match="expected one more"):
        chain(3, bundles=chain(2).bundles)


def test_a_bundle_names_a_tensor_once() -> None:
    twice = (chain().bundles[0][0],) * 2
    with pytest.raises(ValidationError, match="names a tensor twice"):
        chain(1, bundles=(twice, twice))


def test_weights_have_a_size_and_a_size_has_weights() -> None:
    piece = Piece(graph="0" * 64, graph_bytes=1, weights="1" * 64)
    with pytest.raises(ValidationError, match="weights without a size"):
        chain(1, pieces=(piece,))


def test_operators_of_unknown_makers_are_refused() -> None:
    with pytest.raises(ValidationError):
        OperatorSet.model_validate({"domain": "evil.example", "version": 1})
