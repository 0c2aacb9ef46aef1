"""Runs one fragment: a stage, in one thread or on all cores.

Its inputs and outputs have a free batch dimension first. Check the hash of a file before loading it
(`splitplace.storage.model_store.verify`).
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.pieces import joined_from
from splitplace.edge_node.stage.session import StageSession, Tensors, file_session, joined_session
from splitplace.messages.pieces import Bundle, ChainStage
from splitplace.messages.tensors import TensorSpec


class FragmentRuntime:
    """A loaded fragment. `run` may be called from any thread, and releases the GIL while it computes."""

    def __init__(self, stage: StageSession, on_all_cores: StageSession | None = None) -> None:
        """Run a loaded stage. `load_fragment` loads one from a file.

        Args:
            stage: The stage, in one thread a run.
            on_all_cores: The same stage with more threads a run.

        """
        self._stage = stage
        self._on_all_cores = on_all_cores
        self.inputs: Bundle = stage.inputs
        self.outputs: Bundle = stage.outputs
        self.input: TensorSpec = stage.inputs[0].spec
        """The first input."""
        self.output: TensorSpec = stage.outputs[0].spec
        """The first output."""

    @property
    def has_all_cores(self) -> bool:
        """Whether a run can use all cores."""
        return self._on_all_cores is not None

    def run(self, array: NDArray[Any], *, all_cores: bool = False) -> NDArray[Any]:
        """Run a fragment with one input and one output on a batch.

        Args:
            array: Shape `[N, *input.shape]` with N >= 1 and dtype `input.dtype`. May be read-only.
            all_cores: Whether to use all cores, if it was loaded for them. Only one such run at a time is
                worth it.

        Returns:
            Array of shape `[N, *output.shape]` and dtype `output.dtype`.

        Raises:
            FragmentError: The array does not fit the fragment, or the run failed.
            MemoryError: It takes more than is left of the limit.
        """
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise FragmentError(
                f"has {len(self.inputs)} inputs and {len(self.outputs)} outputs instead of one each"
            )
        outputs = self.run_bundle({self.inputs[0].name: array}, all_cores=all_cores)
        return outputs[self.outputs[0].name]

    def run_bundle(self, tensors: Tensors, *, all_cores: bool = False) -> dict[str, NDArray[Any]]:
        """Run the fragment on a batch of each of its inputs. See `StageSession.run`, and `run`."""
        stage = self._on_all_cores if all_cores and self._on_all_cores is not None else self._stage
        return stage.run(tensors)


def load_fragment(path: Path, *, threads: int = 1, spinning: bool = False) -> FragmentRuntime:
    """Load a fragment from an ONNX file with all its weights inside.

    Args:
        path: The file.
        threads: Threads of a run on all cores. For more than one, the weights are loaded twice.
        spinning: Whether threads that wait for others in a run on all cores spin.

    Raises:
        FragmentError: ONNX Runtime refuses the file, or an input or output is not of a supported type, with
            a free first dimension and fixed others.
        MemoryError: it takes more than is left of the limit.
    """
    try:
        wide = file_session(path, threads, spinning=spinning) if threads > 1 else None
        return FragmentRuntime(file_session(path), wide)
    except FragmentError as error:
        raise FragmentError(f"{path.name}: {error}") from error


def load_stage(stage: ChainStage, folder: Path) -> FragmentRuntime:
    """Load a fragment from the files of its pieces in a folder, each named by its hash, which is checked.

    Raises:
        PieceError: A file is missing or damaged, or the pieces do not fit together.
        FragmentError: ONNX Runtime refuses the stage.
        MemoryError: it takes more than is left of the limit.
    """
    return FragmentRuntime(joined_session(stage, joined_from(folder, stage), folder))
