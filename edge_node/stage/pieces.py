"""Find the files of a stage's pieces in a folder, check them, and join them. Blocks: call it in a thread."""

import hashlib
from pathlib import Path

from splitplace.edge_node.stage.body import PieceError, read_body
from splitplace.edge_node.stage.joining import join
from splitplace.messages.limits import MAX_FILE_BYTES, MAX_GRAPH_FILE_BYTES
from splitplace.messages.pieces import ChainStage, Piece


def joined_from(folder: Path, stage: ChainStage) -> bytes:
    """Return the joined model of a stage whose pieces lie in a folder, each file named by its hash.

    The weights files are checked, but not read into memory.

    Raises:
        PieceError: A file is missing, has another hash or size than described, or the pieces do not fit
            together.
        OSError: A file cannot be read.
    """
    bodies = [read_body(piece, _graph_file(folder, piece)) for piece in stage.pieces]
    for piece in stage.pieces:
        if piece.weights is not None:
            _check_weights(folder / piece.weights, piece)
    return join(stage, bodies)


def _graph_file(folder: Path, piece: Piece) -> bytes:
    """Return the content of a graph file: what is checked is what is used."""
    try:
        with (folder / piece.graph).open("rb") as file:
            content = file.read(MAX_GRAPH_FILE_BYTES + 1)
    except FileNotFoundError:
        raise PieceError(f"the graph file {piece.graph[:12]} is missing") from None
    if hashlib.sha256(content).hexdigest() != piece.graph:
        raise PieceError(f"the graph file {piece.graph[:12]} has another SHA-256 than its name")
    return content


def _check_weights(path: Path, piece: Piece) -> None:
    name = path.name[:12]
    if piece.weights_bytes > MAX_FILE_BYTES:
        raise PieceError(f"the weights file {name} is described as larger than {MAX_FILE_BYTES} bytes")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size != piece.weights_bytes:
                raise PieceError(f"the weights file {name} has {size} bytes, expected {piece.weights_bytes}")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise PieceError(f"the weights file {name} is missing") from None
    if found != piece.weights:
        raise PieceError(f"the weights file {name} has another SHA-256 than its name")
