"""Applications as SplitPlace 0.2 stored them: each fragment is one ONNX file."""

from pathlib import Path

from pydantic import Field, ValidationError

from splitplace.messages.application import Label, Variant
from splitplace.messages.base import Milliseconds, Name, NonNegative, Part, Sha256, Words
from splitplace.messages.earlier import complete_manifest
from splitplace.messages.pieces import NamedChain
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import FRAGMENTS, ModelStore, StoreError


class EarlierFragment(Part):
    """A fragment in one file."""

    sha256: Sha256
    milliseconds_per_image: Milliseconds
    milliseconds_per_call: Milliseconds
    input: TensorSpec
    output: TensorSpec


class EarlierApplication(Part):
    """What of an earlier manifest is carried over."""

    name: Name
    title: Words
    input: TensorSpec
    labels: tuple[Label, ...]
    default_deadline_ms: Milliseconds
    reference_score: NonNegative
    variants: tuple[Variant, ...] = Field(min_length=1)
    fragments: tuple[EarlierFragment, ...] = Field(min_length=1)
    chains: tuple[NamedChain, ...] = ()

    @property
    def is_in_pieces(self) -> bool:
        """Whether it has been converted, or was written in pieces."""
        return bool(self.chains)


def earlier_application(store: ModelStore, name: str) -> EarlierApplication:
    """Return an application of a store, of this version or an earlier one.

    Raises:
        StoreError: There is none of that name, or its manifest is unusable.
    """
    try:
        return EarlierApplication.model_validate_json(complete_manifest(store.manifest(name)))
    except ValidationError as error:
        raise StoreError(store.folder(name), f"not a valid manifest: {error}") from error


def earlier_file(store: ModelStore, name: str, sha256: str) -> Path:
    """Return where the only file of a fragment lies. Raises StoreError as `ModelStore.folder` does."""
    return store.folder(name) / FRAGMENTS / f"{sha256}.onnx"
