"""Valid messages for tests, and hypothesis strategies for headers and tensors."""

import string
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.messages.frames import Route, TensorHeader
from splitplace.messages.tensors import TensorSpec
from tests.support.chains import nominal_chains, nominal_run
from tests.support.kinds import kind_named

HASH = "0" * 64

SIGNLESS = string.ascii_letters + string.digits


def _names(signs: str) -> st.SearchStrategy[str]:
    """Not `from_regex`, which takes ten times as long."""
    rest = st.text(SIGNLESS + signs, max_size=63)
    return st.tuples(st.sampled_from(SIGNLESS), rest).map("".join)


names = _names("_.-")
client_names = _names("_-")
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
routes = st.recursive(
    st.builds(Route, stage=names, node=names, fragment=hashes),
    lambda inner: st.builds(
        Route, stage=names, node=names, fragment=hashes, next=st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=5,
)
dtypes = st.sampled_from(["uint8", "int8", "float16", "float32"])


@st.composite
def tensors(draw: st.DrawFn) -> NDArray[Any]:
    """Arrays of every dtype and rank that may travel; at least one item, NaN and infinity among them."""
    dtype = np.dtype(draw(dtypes))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=9, min_side=1, max_side=4))
    array: NDArray[Any] = draw(hnp.arrays(dtype, shape))
    return array


def header_of(array: NDArray[Any], codec: Any, encoded: bytes, **changes: Any) -> TensorHeader:
    """A header that describes an encoded tensor."""
    fields: dict[str, Any] = {
        "task": "camera.7",
        "attempt": 1,
        "application": "mnist",
        "variant": "layer",
        "micro_batch": 0,
        "micro_batches": 1,
        "expires_ms": 250.0,
        "dtype": array.dtype.name,
        "shape": array.shape,
        "codec": codec,
        "encoded_bytes": len(encoded),
        "route": Route(stage="layer-1", node="node-2", fragment=HASH),
        "stage": "layer-1",
    }
    return TensorHeader(**(fields | changes))


def fragment(number: int, reads: TensorSpec, gives: TensorSpec, **changes: Any) -> Fragment:
    """A fragment of a chain of its own for each number."""
    fields: dict[str, Any] = {
        "weight_bytes": 800,
        "peak_memory_bytes": 1200,
        "flops_per_image": 1e6,
        "milliseconds_per_image": 0.5,
        "milliseconds_per_call": 0.1,
    }
    run = nominal_run(f"chain-{number}", reads, gives, 1000, **fields)
    return Fragment.model_validate(run.model_dump() | changes)


IMAGE = TensorSpec(dtype="uint8", shape=(1, 28, 28))
CUT = TensorSpec(dtype="float16", shape=(8, 7, 7))
LOGITS = TensorSpec(dtype="float32", shape=(4,))
HALF = TensorSpec(dtype="float32", shape=(2,))
ENDS = ((IMAGE, LOGITS), (IMAGE, CUT), (CUT, LOGITS), (IMAGE, HALF), (IMAGE, HALF))
FRAGMENTS = tuple(fragment(number, *ends) for number, ends in enumerate(ENDS))
WHOLE, FRONT, BACK, LEFT, RIGHT = (each.sha256 for each in FRAGMENTS)


def variant(name: str, *stages: Stage, **changes: Any) -> Variant:
    """A variant of the given stages."""
    fields: dict[str, Any] = {
        "kind": kind_named(name),
        "micro_batch": 16,
        "accuracy": 0.9,
        "accuracy_images": 10_000,
    }
    return Variant(name=name, stages=stages, **(fields | changes))


def application(**changes: Any) -> Application:
    """An application with all three shapes of variants: one stage, a chain and a star."""
    everything = (0, 1, 2, 3)
    fields: dict[str, Any] = {
        "name": "digits",
        "title": "Digits",
        "input": IMAGE,
        "labels": ("zero", "one", "two", "three"),
        "default_deadline_ms": 1000.0,
        "reference_score": 50.0,
        "variants": (
            variant("whole", Stage(name="whole", fragment=WHOLE, source="input", classes=everything)),
            variant(
                "layer",
                Stage(name="front", fragment=FRONT, source="input"),
                Stage(name="back", fragment=BACK, source="front", classes=everything),
            ),
            variant(
                "semantic",
                Stage(name="left", fragment=LEFT, source="input", classes=(0, 3)),
                Stage(name="right", fragment=RIGHT, source="input", classes=(2, 1)),
            ),
        ),
        "fragments": FRAGMENTS,
    }
    fields |= changes
    return Application(**({"chains": nominal_chains(fields["fragments"])} | fields))
