"""Large networks: their weights are mapped from a file, and they become what small ones become."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from splitplace.messages.application import Application
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.onnx.aside import outside, place_of, values_of
from splitplace.workshop.user_networks.add import AddRequest, add, check_sizes
from splitplace.workshop.user_networks.from_onnx import adopt
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError, read_onnx
from tests.support.commands import measure_quickly
from tests.support.small_pieces import small_convolutions

LARGE_BYTES = 10_000
MATRICES = 3
"""Weights of the small network that have more than a page."""


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    (tmp_path / "aside").mkdir()
    return tmp_path / "aside"


def saved(folder: Path, *, apart: bool) -> Path:
    path = folder / "network.onnx"
    place = "network.data" if apart else None
    onnx.save_model(small_convolutions(), path, save_as_external_data=apart, size_threshold=0, location=place)
    return path


def large_weights(model: onnx.ModelProto) -> list[Path]:
    """Where the weights outside a model lie."""
    return [
        Path(place_of(tensor).location)
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]


def added(model: onnx.ModelProto, folder: Path) -> Application:
    network = adopt(model, Preprocessing.for_channels(3, [], [], 1.0))
    request = AddRequest(name="network", title="network", labels=("a", "b", "c", "d"), stages=(2,))
    application, _ = add(network, request, ModelStore(folder), 0.5)
    return application


@pytest.mark.parametrize("apart", [True, False])
def test_a_large_network_becomes_the_same_pieces_without_being_held(
    tmp_path: Path, aside: Path, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    measure_quickly(monkeypatch)
    path = saved(tmp_path, apart=apart)
    small, large = read_onnx(path, aside), read_onnx(path, aside, LARGE_BYTES)
    assert not large_weights(small)
    assert large_weights(large) == [path.with_suffix(".data") if apart else aside / "inside"] * MATRICES
    assert large.ByteSize() < small.ByteSize() / 3
    for part in ("node", "input", "output"):
        assert list(getattr(large.graph, part)) == list(getattr(small.graph, part))
    files = [set(added(model, tmp_path / name).files) for name, model in (("s", small), ("l", large))]
    assert files[0] == files[1]


def test_weights_in_constants_are_laid_aside_as_well(tmp_path: Path, aside: Path) -> None:
    model = small_convolutions()
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    onnx.save_model(model, tmp_path / "network.onnx")
    read = read_onnx(tmp_path / "network.onnx", aside, LARGE_BYTES)
    assert large_weights(read) == [aside / "weights"] * MATRICES


def test_weights_that_cannot_be_mapped_where_they_lie_are_laid_aside(tmp_path: Path, aside: Path) -> None:
    path = saved(tmp_path, apart=True)
    model = onnx.load_model(path, load_external_data=False)
    path.with_suffix(".data").write_bytes(b"!" + path.with_suffix(".data").read_bytes())
    for tensor in model.graph.initializer:
        (offset,) = (entry for entry in tensor.external_data if entry.key == "offset")
        offset.value = str(int(offset.value) + 1)
    path.write_bytes(model.SerializeToString())
    read = read_onnx(path, aside, LARGE_BYTES)
    assert large_weights(read) == [aside / "weights"] * MATRICES
    assert (aside / "weights").read_bytes().startswith(small_convolutions().graph.initializer[1].raw_data)


def test_a_weight_behind_the_end_of_its_file_is_refused(tmp_path: Path, aside: Path) -> None:
    path = saved(tmp_path, apart=True)
    data = path.with_suffix(".data")
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size // 2)
    with pytest.raises(UserNetworkError, match=r"bytes cannot be read from byte \d+ on of network\.data"):
        read_onnx(path, aside, LARGE_BYTES)


def test_what_is_mapped_has_the_values_of_the_file(tmp_path: Path, aside: Path) -> None:
    read = read_onnx(saved(tmp_path, apart=True), aside, LARGE_BYTES)
    for ours, theirs in zip(read.graph.initializer, small_convolutions().graph.initializer, strict=True):
        np.testing.assert_array_equal(values_of(ours), onnx.numpy_helper.to_array(theirs))


def test_weights_inside_and_outside_a_file_come_together(tmp_path: Path, aside: Path) -> None:
    path = saved(tmp_path, apart=True)
    model = onnx.load_model(path, load_external_data=False)
    model.graph.initializer[1].CopyFrom(small_convolutions().graph.initializer[1])
    path.write_bytes(model.SerializeToString())
    read = read_onnx(path, aside, LARGE_BYTES - 1500)
    assert large_weights(read) == [aside / "weights"] * MATRICES


def rewritten(path: Path, **changes: str | None) -> onnx.ModelProto:
    """Change entries of all weights outside a file; None takes one away."""
    model = onnx.load_model(path, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = {entry.key: entry.value for entry in tensor.external_data} | changes
        del tensor.external_data[:]
        for key, value in kept.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return model


def test_weights_count_by_their_own_sizes_although_they_share_a_small_file(
    tmp_path: Path, aside: Path
) -> None:
    path = saved(tmp_path, apart=True)
    rewritten(path, offset="0")
    data = path.with_suffix(".data")
    data.write_bytes(data.read_bytes()[:9216])
    limit = 15_000
    assert path.stat().st_size + data.stat().st_size < limit
    assert large_weights(read_onnx(path, aside, limit)) == [data] * MATRICES


def test_of_a_weight_without_a_length_no_more_is_read_than_it_takes(tmp_path: Path, aside: Path) -> None:
    path = saved(tmp_path, apart=True)
    rewritten(path, length=None)
    read = read_onnx(path, aside)
    for ours, theirs in zip(read.graph.initializer, small_convolutions().graph.initializer, strict=True):
        assert ours.raw_data == theirs.raw_data


def test_weights_of_narrow_floats_are_mapped_too(tmp_path: Path, aside: Path) -> None:
    path = saved(tmp_path, apart=True)
    model = rewritten(path, length=None)
    for tensor in model.graph.initializer:
        tensor.data_type, tensor.dims[0] = TensorProto.BFLOAT16, 2 * tensor.dims[0]
    path.write_bytes(model.SerializeToString())
    assert large_weights(read_onnx(path, aside, LARGE_BYTES)) == [path.with_suffix(".data")] * MATRICES


@pytest.mark.parametrize(
    ("location", "sides", "reason"),
    [
        ("network\0.data", (2, 3), "only files of its own folder"),
        ("network.data", (-2, -3), "a side below 0"),
    ],
)
def test_places_and_sizes_that_cannot_be_are_refused(
    tmp_path: Path, aside: Path, location: str, sides: tuple[int, ...], reason: str
) -> None:
    path = saved(tmp_path, apart=True)
    model = rewritten(path, location=location, length=None)
    model.graph.initializer[0].dims[:] = sides
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserNetworkError, match=reason):
        read_onnx(path, aside)


def test_a_sparse_weight_outside_its_file_is_refused(tmp_path: Path, aside: Path) -> None:
    model = small_convolutions()
    values, indices = TensorProto(name="s", dims=[1], data_type=TensorProto.FLOAT), TensorProto()
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="secret")
    model.graph.sparse_initializer.add(values=values, indices=indices, dims=[4])
    path = tmp_path / "network.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserNetworkError, match="'s' lies outside the file"):
        read_onnx(path, aside)


def test_a_network_of_too_many_pieces_is_refused_by_the_sizes_of_its_weights_alone() -> None:
    side, layers = 8000, 70
    nodes = [helper.make_node("MatMul", [f"h{at}", f"w{at}"], [f"h{at + 1}"]) for at in range(layers)]
    ends = [helper.make_tensor_value_info(f"h{at}", TensorProto.FLOAT, ["batch", side]) for at in (0, layers)]
    weights = [
        outside(
            TensorProto(name=f"w{at}", dims=[side, side], data_type=TensorProto.FLOAT),
            "nowhere",
            0,
            4 * side**2,
        )
        for at in range(layers)
    ]
    graph = helper.make_graph(nodes, "huge", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UserNetworkError, match=r"weights of 17090 MiB make 70 pieces .*at most 64 are"):
        check_sizes(model, 1)
