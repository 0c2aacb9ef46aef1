"""What is written is what the onnx package reads, and the other way round."""

import onnx
from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.protobuf import fields, integers
from splitplace.edge_node.stage import wire


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_numbers_are_written_as_the_onnx_package_reads_them(value: int) -> None:
    model = onnx.ModelProto.FromString(wire.number_field(5, value))
    assert model.model_version == value


@given(st.text(st.characters(codec="utf-8")))
def test_texts_are_written_as_the_onnx_package_reads_them(value: str) -> None:
    assert onnx.ModelProto.FromString(wire.text_field(2, value)).producer_name == value


@given(st.lists(st.integers(min_value=-(2**63), max_value=2**63 - 1)))
def test_packed_and_unpacked_numbers_are_read_alike(values: list[int]) -> None:
    packed = onnx.TensorProto(dims=values).SerializeToString()
    unpacked = b"".join(wire.number_field(1, value) for value in values)
    for content in (packed, unpacked):
        assert [each for _, value in fields(memoryview(content)) for each in integers(value)] == values


@given(st.lists(st.tuples(st.integers(1, 1000), st.binary(max_size=300))))
def test_fields_are_read_as_they_were_written(written: list[tuple[int, bytes]]) -> None:
    content = b"".join(wire.bytes_field(number, payload) for number, payload in written)
    read = [
        (number, bytes(value)) for number, value in fields(memoryview(content)) if not isinstance(value, int)
    ]
    assert read == written
