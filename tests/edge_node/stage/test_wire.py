import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from splitplace.edge_node.stage import wire


def fields_of(content: bytes) -> list[wire.Field]:
    return list(wire.fields(memoryview(content)))


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_numbers_are_written_as_the_onnx_package_reads_them(value: int) -> None:
    model = onnx.ModelProto.FromString(wire.number_field(5, value))
    assert model.model_version == value


@given(st.text(st.characters(codec="utf-8")))
def test_texts_are_written_as_the_onnx_package_reads_them(value: str) -> None:
    assert onnx.ModelProto.FromString(wire.text_field(2, value)).producer_name == value


@given(st.lists(st.integers(min_value=0, max_value=2**63 - 1)))
def test_packed_and_unpacked_numbers_are_read_alike(values: list[int]) -> None:
    packed = onnx.TensorProto(dims=values).SerializeToString()
    unpacked = b"".join(wire.number_field(1, value) for value in values)
    for content in (packed, unpacked):
        found = [value for field in fields_of(content) for value in wire.numbers(field)]
        assert found == values


def test_fields_come_with_number_and_bytes() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], alpha=0.5)
    found = fields_of(node.SerializeToString())
    assert [(field.number, bytes(field.payload)) for field in found[:3]] == [
        (1, b"x"),
        (2, b"y"),
        (4, b"Relu"),
    ]
    number = next(field for field in fields_of(bytes(found[3].payload)) if field.kind == wire.FIXED_32)
    assert len(number.payload) == 4


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_end_in_one_kind_of_error(content: bytes) -> None:
    try:
        for field in fields_of(content):
            list(wire.numbers(field))
            wire.text(field)
    except wire.WireError:
        pass


@pytest.mark.parametrize(
    "content",
    [b"\x08", b"\x0a\x05abc", b"\x0d\x00", b"\x0b", b"\x00\x00", b"\x08" + b"\xff" * 11],
    ids=["no number", "text cut short", "float cut short", "a group", "field 0", "a number without end"],
)
def test_what_is_cut_short_or_unknown_is_an_error(content: bytes) -> None:
    with pytest.raises(wire.WireError):
        fields_of(content)
