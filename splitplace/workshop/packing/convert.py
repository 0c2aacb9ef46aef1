"""Turn an application whose fragments are files into one whose fragments are runs of pieces.

Accuracies and times are carried over. What is new is compared with what was there, on noise.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from splitplace.edge_node.runtime import load_fragment, load_stage
from splitplace.edge_node.sessions import FragmentError
from splitplace.edge_node.stage.body import PieceError
from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment, Variant
from splitplace.messages.limits import MAX_STAGES
from splitplace.messages.pieces import NamedChain
from splitplace.messages.tensors import TensorSpec
from splitplace.workshop.cutting.profile import Timing
from splitplace.workshop.onnx.inference import GraphError
from splitplace.workshop.packing.description import described, with_costs, with_times
from splitplace.workshop.packing.earlier import EarlierApplication
from splitplace.workshop.packing.evaluation import EQUAL_LOGITS, difference
from splitplace.workshop.packing.merging import merged
from splitplace.workshop.packing.telling import Told, tell_nobody
from splitplace.workshop.pieces.chain import SegmentTimes, measured, timed_chain, write_files
from splitplace.workshop.pieces.constants import ConstantError, with_constants_as_weights
from splitplace.workshop.pieces.cut import PieceCutError, cut_numbers
from splitplace.workshop.pieces.places import piece_places
from splitplace.workshop.pieces.times import segment_milliseconds

TRIAL_IMAGES = 4
"""Images of noise on which files and pieces are compared."""


class ConversionError(SplitPlaceError):
    """An application that cannot be converted; it stays as it was."""


@dataclass(frozen=True)
class _Run:
    """Where an earlier fragment went: a run of pieces of a chain."""

    chain: str
    first: int
    end: int


@dataclass
class _Converted:
    """What has been converted so far."""

    folder: Path
    measure: SegmentTimes
    chains: dict[str, NamedChain] = field(default_factory=dict)
    runs: dict[str, _Run] = field(default_factory=dict)
    """By the hash of the earlier fragment."""

    def add(
        self, name: str, model: onnx.ModelProto, cut_by: Mapping[tuple[str, ...], tuple[str, ...]]
    ) -> None:
        """Cut a network into pieces.

        Args:
            name: Name of the chain.
            model: The network.
            cut_by: Tensors at which it is cut, by the hashes of the fragments between them.
        """
        required = {tensor for tensors in cut_by.values() for tensor in tensors}
        timed = timed_chain(measured(model, self.measure), required)
        write_files(self.folder, timed.cut)
        chain = timed.cut.chain
        self.chains[name] = with_costs(self.folder, name, timed)
        for hashes, tensors in cut_by.items():
            ends = [0, *cut_numbers(chain, tensors), len(chain.pieces)]
            for index, sha256 in enumerate(hashes):
                self.runs.setdefault(sha256, _Run(name, ends[index], ends[index + 1]))


def converted(
    earlier: EarlierApplication,
    file_path: Callable[[str], Path],
    folder: Path,
    told: Told = tell_nobody,
    measure: SegmentTimes = segment_milliseconds,
) -> Application:
    """Return the application in pieces, whose files are written into a folder.

    The variant `whole` and the chains that were cut from it become groupings of one chain of pieces. Every
    other variant gets chains of its own.

    Args:
        earlier: The application as it was.
        file_path: Maps the hash of a fragment to its file.
        folder: Empty folder for the files of pieces, each named by its hash.
        told: Function that is told what is being done.
        measure: Function that times the segments of a network.

    Raises:
        ConversionError: A network cannot be cut into pieces, or they answer otherwise.
        OSError: A file cannot be read or written.
    """
    done = _Converted(folder, measure)
    models = _Models(file_path)
    try:
        for name, model, cut_by in _networks(earlier, models):
            if not all(sha256 in done.runs for hashes in cut_by for sha256 in hashes):
                told(f"cutting {name} into pieces")
                done.add(name, model, cut_by)
        application = _application(earlier, done)
        told("comparing files and pieces")
        for before in earlier.fragments:
            _compare(before.input, file_path(before.sha256), done, before.sha256)
    except (FragmentError, GraphError, ConstantError, PieceCutError, PieceError) as error:
        raise ConversionError(f"{earlier.name} cannot be converted: {error}") from error
    return application


class _Models:
    """Fragments as models, by hash; each is read when it is asked for."""

    def __init__(self, file_path: Callable[[str], Path]) -> None:
        self._file_path = file_path

    def of(self, variant: Variant) -> tuple[onnx.ModelProto, ...]:
        return tuple(onnx.load(self._file_path(stage.fragment)) for stage in variant.stages)


def _networks(
    earlier: EarlierApplication, models: _Models
) -> Iterator[tuple[str, onnx.ModelProto, dict[tuple[str, ...], tuple[str, ...]]]]:
    """Yield each network with the variants that are groupings of it: their fragments and cuts."""
    whole = next((each for each in earlier.variants if each.name == "whole" and len(each.stages) == 1), None)
    shared: set[str] = set()
    if whole is not None:
        (model,) = models.of(whole)
        cut_by = {_hashes(whole): ()} | {
            _hashes(variant): tensors
            for variant in earlier.variants
            if variant.kind == "layer"
            and len(variant.stages) > 1
            and (tensors := _cuts_of(model, models.of(variant))) is not None
        }
        shared = {sha256 for hashes in cut_by for sha256 in hashes}
        yield "whole", model, cut_by
    for variant in earlier.variants:
        if shared.issuperset(_hashes(variant)):
            continue
        parts = models.of(variant)
        one = merged(parts) if variant.kind == "layer" else None
        if one is not None:
            yield variant.name, one, {_hashes(variant): _crossing(parts)}
            continue
        for index, (stage, part) in enumerate(zip(variant.stages, parts, strict=True)):
            name = variant.name if len(parts) == 1 else f"{variant.name}-{index}"
            yield name, part, {(stage.fragment,): ()}


def _hashes(variant: Variant) -> tuple[str, ...]:
    return tuple(stage.fragment for stage in variant.stages)


def _crossing(parts: tuple[onnx.ModelProto, ...]) -> tuple[str, ...]:
    """Return the tensors between neighbouring fragments."""
    return tuple(part.graph.output[0].name for part in parts[:-1])


def _cuts_of(whole: onnx.ModelProto, parts: tuple[onnx.ModelProto, ...]) -> tuple[str, ...] | None:
    """Return the tensors at which a network is cut to give these fragments; None if they are of another."""
    tensors = _crossing(parts)
    places = [place.tensors for place in piece_places(with_constants_as_weights(whole))]
    positions = [places.index((tensor,)) for tensor in tensors if (tensor,) in places]
    if len(positions) < len(tensors) or positions != sorted(set(positions)):
        return None
    weights = {weight.name: weight for weight in whole.graph.initializer}
    for part in parts:
        for weight in part.graph.initializer:
            if weight.name not in weights or weight != weights[weight.name]:
                return None
    return tensors


def _most_stages(variant: Variant, done: _Converted) -> int | None:
    """Return into how many stages a placement may group the pieces; None for what is no cut of `whole`."""
    chains = {done.runs[stage.fragment].chain for stage in variant.stages}
    if variant.kind != "layer" or chains != {"whole"}:
        return None
    return MAX_STAGES if variant.name == "layer" else len(variant.stages)


def _application(earlier: EarlierApplication, done: _Converted) -> Application:
    micro_batches = {
        stage.fragment: variant.micro_batch for variant in earlier.variants for stage in variant.stages
    }
    fragments: dict[str, Fragment] = {}
    timings: dict[str, Timing] = {}
    ids: dict[str, str] = {}
    for before in earlier.fragments:
        run = done.runs[before.sha256]
        batch = micro_batches[before.sha256]
        fragment = described(done.folder, done.chains[run.chain], run.first, run.end, micro_batch=batch)
        ids[before.sha256] = fragment.sha256
        fragments[fragment.sha256] = fragment
        timings[fragment.sha256] = Timing(before.milliseconds_per_call, before.milliseconds_per_image)
    variants = tuple(
        variant.model_copy(
            update={
                "stages": tuple(
                    stage.model_copy(update={"fragment": ids[stage.fragment]}) for stage in variant.stages
                ),
                "most_stages": _most_stages(variant, done),
            }
        )
        for variant in earlier.variants
    )
    application = Application(
        name=earlier.name,
        title=earlier.title,
        input=earlier.input,
        labels=earlier.labels,
        default_deadline_ms=earlier.default_deadline_ms,
        reference_score=earlier.reference_score,
        variants=variants,
        fragments=tuple(fragments.values()),
        chains=tuple(done.chains.values()),
    )
    return with_times(application, list(timings.values()), earlier.reference_score)


def _compare(source: TensorSpec, path: Path, done: _Converted, sha256: str) -> None:
    """Raise ConversionError unless a file and its pieces give the same for noise."""
    run = done.runs[sha256]
    pieces = load_stage(done.chains[run.chain].chain.stage(run.first, run.end), done.folder)
    images = _noise(source)
    expected, found = load_fragment(path).run(images), pieces.run(images)
    if np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"):
        return
    apart = difference(found.astype(np.float64), expected.astype(np.float64))
    if not apart <= EQUAL_LOGITS:
        raise ConversionError(f"the pieces of fragment {sha256[:12]} differ from its file by {apart:.1e}")


def _noise(spec: TensorSpec) -> NDArray[Any]:
    random = np.random.default_rng(0)
    shape = (TRIAL_IMAGES, *spec.shape)
    if spec.dtype in {"uint8", "int8"}:
        limits = np.iinfo(spec.dtype)
        return random.integers(limits.min, limits.max + 1, shape).astype(spec.dtype)
    return random.standard_normal(shape).astype(spec.dtype)
