"""Run whole models with ONNX Runtime, as the workshop's trials do: one thread, nothing logged."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime as ort

from splitplace.workshop.onnx.aside import laid_aside, with_bare_places
from splitplace.workshop.onnx.light import LARGE_MODEL_BYTES

_PROVIDERS = ["CPUExecutionProvider"]
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"


def session_options() -> ort.SessionOptions:
    """Return options for one thread, and for silence: errors are raised anyway."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def session_of(model: onnx.ModelProto, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """Load a model; `options` are those of `session_options` unless given. Raises ONNX Runtime's errors."""
    chosen = options or session_options()
    with ExitStack() as stack:  # what is mapped may be removed
        if sum(tensor.ByteSize() for tensor in model.graph.initializer) > LARGE_MODEL_BYTES:
            folder = stack.enter_context(TemporaryDirectory(prefix="splitplace-"))
            model = laid_aside(model, Path(folder, "weights"))
        bare, outside = with_bare_places(model)
        if outside is not None:
            chosen.add_session_config_entry(_FOLDER_OF_WEIGHTS, str(outside))
        return ort.InferenceSession(bare.SerializeToString(), chosen, providers=_PROVIDERS)
