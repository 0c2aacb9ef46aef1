"""Keep what a run has made and measured, so that the next one goes on where this one is interrupted."""

import contextlib
import json
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar
from zipfile import BadZipFile

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import TypeAdapter

from splitplace.storage.exclusive import exclusive
from splitplace.storage.model_store import StoreError
from splitplace.storage.replace import replace_file
from splitplace.workshop.onnx.aside import raw_of
from splitplace.workshop.onnx.light import without_weights
from splitplace.workshop.packing.telling import Told, tell_nobody

MOST_UNFINISHED = 2
"""Unfinished networks that are kept; older ones are removed."""
_PIECES, _MEASURED, _LOCK = "pieces", "measured", "lock"

T = TypeVar("T")


@dataclass(frozen=True)
class Unfinished:
    """The files of a network that is being packed, and what was measured of it."""

    pieces: Path
    """Folder of the files of its pieces, each named by its hash."""
    measured: Path | None = None
    """Folder of measurements; None keeps none."""

    def once(self, what: str, about: object, kind: TypeAdapter[T], measure: Callable[[], T]) -> T:
        """Return a measurement that is kept, else measure and keep it.

        Args:
            what: What is measured: the beginning of the file's name.
            about: What the measurement depends on beside the network, as JSON.
            kind: The type of the measurement, to be kept as JSON.
            measure: Function that measures.
        """
        return _once(self._file(what, about, "json"), measure, kind.validate_json, kind.dump_json)

    def array_once(self, what: str, about: object, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return an array that is kept, else compute and keep it. See `once`."""
        return _once(self._file(what, about, "npy"), compute, _array, _content)

    def _file(self, what: str, about: object, suffix: str) -> Path | None:
        if self.measured is None:
            return None
        return self.measured / f"{what}-{sha256(json.dumps(about).encode()).hexdigest()}.{suffix}"


def _once(
    file: Path | None, make: Callable[[], T], read: Callable[[bytes], T], content: Callable[[T], bytes]
) -> T:
    """Return what a file holds, else make it and write it; with None, only make it."""
    if file is None:
        return make()
    with contextlib.suppress(OSError, ValueError, EOFError, BadZipFile):  # it is missing, or damaged
        return read(file.read_bytes())
    made = make()
    replace_file(file, content(made))
    return made


def _array(content: bytes) -> NDArray[Any]:
    found: NDArray[Any] = np.load(BytesIO(content), allow_pickle=False)
    return found


def _content(array: NDArray[Any]) -> bytes:
    written = BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()


NOTHING: Final = Unfinished(Path())
"""Keeps nothing."""


@contextlib.contextmanager
def unfinished(root: Path | None, network: onnx.ModelProto, told: Told = tell_nobody) -> Iterator[Unfinished]:
    """Give a run what an earlier one on the same network left, and keep what it makes if it is interrupted.

    Nothing is kept of a run that ends, well or with an error, unless files could not be written. Other
    versions of the software, and other machines, measure anew. Where nothing can be kept, nothing is.

    Args:
        root: Folder of all unfinished networks; None keeps nothing.
        network: What is to be packed.
        told: Function that is told of an earlier run.
    """
    with contextlib.ExitStack() as stack:
        folder = None if root is None else root / _key(network)
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(exclusive(folder / _LOCK))
                (folder / _LOCK).touch()
            except OSError:  # another run adds the same network now, or nothing can be kept there
                folder = None
        if folder is None:
            yield Unfinished(Path(stack.enter_context(TemporaryDirectory(prefix="splitplace-"))))
            return
        _forget_others(folder)
        if (folder / _MEASURED).is_dir():
            told("going on where an earlier run was interrupted")
        try:
            yield Unfinished(folder / _PIECES, folder / _MEASURED)
        except (OSError, StoreError):  # a full disk, or no permission: once that is put right, it goes on
            raise
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _key(network: onnx.ModelProto) -> str:
    """Return a hash of a network, and of all that measurements depend on beside it."""
    bare, _ = without_weights(network)
    found = sha256(f"{version('splitplace')} {ort.__version__} {platform.node()}\n".encode())
    found.update(bare.SerializeToString(deterministic=True))
    for tensor in network.graph.initializer:
        found.update(f"{tensor.name} {list(tensor.dims)} {tensor.data_type}\n".encode())
        found.update(raw_of(tensor) or tensor.SerializeToString(deterministic=True))
    return found.hexdigest()


def _forget_others(folder: Path) -> None:
    """Remove older unfinished networks, unless a run is at work on them."""
    others = [each for each in folder.parent.glob("*/") if each != folder]
    for old in sorted(others, key=_last_used_s, reverse=True)[MOST_UNFINISHED - 1 :]:
        with contextlib.suppress(OSError), exclusive(old / _LOCK):
            shutil.rmtree(old)


def _last_used_s(folder: Path) -> float:
    """Return when a run last began there; 0 for what another one removes now, or was killed removing."""
    try:
        return (folder / _LOCK).stat().st_mtime
    except OSError:
        return 0.0
