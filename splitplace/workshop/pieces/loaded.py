"""Load what the model store keeps: a fragment as a node runs it, or its graph to look at.

Evaluation, profiles and benchmarks load fragments by this module alone.
"""

from pathlib import Path

import onnx
from onnx import TensorProto

from splitplace.edge_node.runtime import FragmentRuntime, load_stage
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.messages.application import Application, Fragment
from splitplace.messages.pieces import ChainStage
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.onnx.aside import outside, place_of, raw_of
from splitplace.workshop.onnx.graph import without_weights
from splitplace.workshop.onnx.light import LARGE_MODEL_BYTES, is_outside


def stage_runtime(store: ModelStore, application: Application, fragment: Fragment) -> FragmentRuntime:
    """Load a fragment from a model store.

    Raises:
        StoreError: The store has no such application or file.
        PieceError: A file of a piece is missing or damaged.
        splitplace.edge_node.sessions.FragmentError: ONNX Runtime refuses it.
    """
    return load_stage(application.stage_of(fragment), store.pieces_folder(application.name))


def stage_model(store: ModelStore, application: Application, fragment: Fragment) -> onnx.ModelProto:
    """Return a fragment as one model with all its weights.

    Raises:
        StoreError: The store has no such application or file.
        PieceError: A file of a piece is missing or damaged.
    """
    return joined_model(store.pieces_folder(application.name), application.stage_of(fragment))


def joined_model(folder: Path, stage: ChainStage) -> onnx.ModelProto:
    """Return a stage whose pieces lie in a folder as one model with all its weights; large ones stay there.

    Raises:
        PieceError: A file is missing or damaged.
    """
    model: onnx.ModelProto = onnx.ModelProto.FromString(joined_from(folder, stage))
    is_large = sum(piece.weights_bytes for piece in stage.pieces) > LARGE_MODEL_BYTES
    for tensor in model.graph.initializer:
        if not is_outside(tensor):
            continue
        file, offset, length = place_of(tensor)
        tensor.CopyFrom(outside(tensor, folder.absolute() / file, offset, length or 0))
        if not is_large:
            tensor.raw_data = bytes(raw_of(tensor))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def joined_graph(folder: Path, stage: ChainStage) -> onnx.ModelProto:
    """Return a stage as one model that tells the sizes of its large weights, but does not hold them.

    Raises:
        PieceError: A file is missing or damaged.
    """
    return without_weights(onnx.ModelProto.FromString(joined_from(folder, stage)))
