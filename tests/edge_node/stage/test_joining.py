"""Joined pieces are one ONNX model, as the onnx package reads it, and compute what the network does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitplace.edge_node.graph_check import GraphRefusedError, check_bytes, check_stage
from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.body import Body, PieceError, read_body
from splitplace.edge_node.stage.joining import BATCH_SIZE, head, join
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import joined_session
from splitplace.messages.pieces import ChainStage, NamedTensor, OperatorSet, Piece
from splitplace.messages.tensors import TensorSpec
from tests.support.small_pieces import SIDE, Written, answers, noise, written_pieces


def stage_of(count: int, inputs: str = "x", outputs: str = "y") -> ChainStage:
    spec = TensorSpec(dtype="float32", shape=(2,))
    return ChainStage(
        ir_version=9,
        opsets=(OperatorSet(domain="", version=17),),
        pieces=tuple(Piece(graph=f"{index:064x}", graph_bytes=1) for index in range(count)),
        inputs=tuple(NamedTensor(name=name, spec=spec) for name in inputs),
        outputs=tuple(NamedTensor(name=name, spec=spec) for name in outputs),
    )


def body_of(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = ()) -> Body:
    model = onnx.ModelProto()
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    return read_body(Piece(graph="0" * 64, graph_bytes=1), model.SerializeToString())


RELU = body_of(helper.make_node("Relu", ["x"], ["m"]))
NEG = body_of(helper.make_node("Neg", ["m"], ["y"]))


def test_a_head_is_what_the_onnx_package_would_write() -> None:
    found = onnx.ModelProto.FromString(head(stage_of(1), with_batch_size=False))
    expected = onnx.ModelProto(ir_version=9, opset_import=[helper.make_opsetid("", 17)])
    expected.graph.name = "stage"
    expected.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2]))
    expected.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2]))
    assert found == expected


def test_the_onnx_package_finds_nothing_wrong_with_a_joined_stage() -> None:
    model = onnx.ModelProto.FromString(join(stage_of(2), [RELU, NEG]))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Neg"]


def test_the_head_computes_the_number_of_images_once_for_all_pieces() -> None:
    one = numpy_helper.from_array(np.ones(1, np.int64), "c")
    first = body_of(
        helper.make_node("Concat", [BATCH_SIZE, "c"], ["s"], axis=0),
        helper.make_node("Reshape", ["x", "s"], ["m"]),
        weights=(one,),
    )
    second = body_of(helper.make_node("Mul", ["m", BATCH_SIZE], ["y"]))
    model = onnx.ModelProto.FromString(join(stage_of(2), [first, second]))
    assert [node.op_type for node in model.graph.node[:2]] == ["Shape", "Slice"]
    assert sum(BATCH_SIZE in node.output for node in model.graph.node) == 1


def test_a_tensor_that_two_pieces_make_is_refused() -> None:
    again = body_of(helper.make_node("Neg", ["m"], ["y"]), helper.make_node("Abs", ["m"], ["m"]))
    with pytest.raises(PieceError, match="two pieces make the same tensor 'm'"):
        join(stage_of(2), [RELU, again])


def test_a_piece_that_redefines_the_stages_input_is_refused() -> None:
    with pytest.raises(PieceError, match="two pieces make the same tensor 'x'"):
        join(stage_of(1, outputs="x"), [body_of(helper.make_node("Relu", ["q"], ["x"]))])


def test_a_piece_that_makes_what_the_head_makes_is_refused() -> None:
    impostor = body_of(helper.make_node("Shape", ["x"], [BATCH_SIZE]))
    with pytest.raises(PieceError, match="only the head makes"):
        join(stage_of(3), [impostor, RELU, NEG])


def test_pieces_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(PieceError, match="no piece before it makes the tensor 'm'"):
        join(stage_of(2), [NEG, RELU])


def test_a_stage_without_its_output_is_refused() -> None:
    with pytest.raises(PieceError, match="makes its output 'y'"):
        join(stage_of(1), [RELU])


def test_a_tensor_that_only_later_stages_read_is_handed_on(tmp_path: Path) -> None:
    stage = stage_of(2, inputs="xk", outputs="yk")
    session = joined_session(stage, join(stage, [RELU, NEG]), tmp_path)
    x, k = np.array([[1.0, -1.0]], np.float32), np.array([[5.0, 6.0]], np.float32)
    found = session.run({"x": x, "k": k})
    assert found["y"].tolist() == [[-1.0, 0.0]]
    assert found["k"] is k


def test_a_tensor_whose_size_stands_in_another_piece_is_bounded() -> None:
    shape = numpy_helper.from_array(np.array([1000, 1000], np.int64), "s")
    first = body_of(helper.make_node("Relu", ["x"], ["m"]), weights=(shape,))
    last = body_of(
        helper.make_node("ConstantOfShape", ["s"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["m", "zero"], ["y"]),
    )
    model = join(stage_of(2), [first, last])
    check_stage(model, 4_000_000)
    with pytest.raises(GraphRefusedError, match="4000000 bytes"):
        check_stage(model, 3_999_999)
    with pytest.raises(GraphRefusedError, match="exactly one graph"):
        check_bytes(model, 4_000_000)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written_pieces(tmp_path_factory.mktemp("pieces"))


@pytest.mark.parametrize("images", [1, 8])
def test_joined_pieces_answer_bit_for_bit_as_the_network_in_one_file(written: Written, images: int) -> None:
    stage = written.whole
    session = joined_session(stage, joined_from(written.folder, stage), written.folder)
    batch = noise(images)
    assert np.array_equal(session.run({"images": batch})["logits"], answers(written.model, batch))


def test_a_session_refuses_what_is_not_its_bundle(written: Written) -> None:
    stage = written.cut.chain.stage(1, 2)
    session = joined_session(stage, joined_from(written.folder, stage), written.folder)
    for wrong in (
        {"images": noise(1)},
        {"r0": noise(1)},
        {"r0": np.zeros((0, 16, SIDE, SIDE), np.float32)},
        {"r0": np.zeros((1, 16, SIDE, SIDE), np.float16)},
        {"r0": np.zeros((1, 16, SIDE, SIDE), np.float32), "r1": np.zeros((1, 2), np.float32)},
    ):
        with pytest.raises(FragmentError, match="expected"):
            session.run(wrong)


def test_a_manifest_that_lies_about_a_stage_is_found_when_it_is_loaded(written: Written) -> None:
    stage = written.whole
    wider = NamedTensor(name="logits", spec=TensorSpec(dtype="float32", shape=(5,)))
    liar = stage.model_copy(update={"outputs": (wider,)})
    with pytest.raises(FragmentError):
        joined_session(liar, joined_from(written.folder, liar), written.folder).run({"images": noise(1)})


@pytest.mark.parametrize("kind", ["graph", "weights"])
def test_a_damaged_file_of_a_piece_is_refused(tmp_path: Path, kind: str) -> None:
    here = written_pieces(tmp_path)
    path = tmp_path / getattr(here.whole.pieces[1], kind)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PieceError, match=f"{kind} file {path.name[:12]} has another SHA-256"):
        joined_from(tmp_path, here.whole)
    path.unlink()
    with pytest.raises(PieceError, match=f"{kind} file {path.name[:12]} is missing"):
        joined_from(tmp_path, here.whole)


def test_a_weights_file_that_is_cut_short_is_refused_without_reading_it(tmp_path: Path) -> None:
    here = written_pieces(tmp_path)
    piece = here.whole.pieces[1]
    path = tmp_path / str(piece.weights)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PieceError, match=f"expected {piece.weights_bytes}"):
        joined_from(tmp_path, here.whole)
