"""The shipped networks as files: their samples, and what ONNX Runtime says of them.

The manifest of a model store is data; nothing of the product is imported to read it.
"""

import itertools
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nemesis import networks

USED = 100
"""Samples of each application that are sent: the right answers to all of them take seconds."""
CLOSE_CALL = 0.05
"""Two classes whose probabilities differ by less may change places with the size of a micro-batch."""


@dataclass(frozen=True)
class Opinion:
    """What a variant may answer for one input."""

    classes: frozenset[int]
    confidence: float
    """Probability of the most likely class."""


@dataclass(frozen=True)
class Application:
    """A shipped application that has samples."""

    name: str
    folder: Path
    images: NDArray[np.uint8] = field(repr=False)
    """Shape `[samples, channels, height, width]`."""

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest

    def outputs(self, variant: str) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return classes and logits `[samples, classes]` of every output of a variant. Raises KeyError."""
        stages = next((v["stages"] for v in self._manifest["variants"] if v["name"] == variant), None)
        if stages is None:
            raise KeyError(f"{self.name} has no variant {variant}")
        tensors: dict[str, NDArray[Any]] = {"input": self.images}
        for stage in stages:  # every stage follows its source
            network = self._network(stage["fragment"])
            feed = {network.get_inputs()[0].name: tensors[stage["source"]]}
            tensors[stage["name"]] = network.run(None, feed)[0]
        return [
            (np.asarray(stage["classes"]), tensors[stage["name"]].astype(np.float64))
            for stage in stages
            if stage["classes"]
        ]

    def _network(self, fragment: str) -> ort.InferenceSession:
        run = next(known for known in self._manifest["fragments"] if known["sha256"] == fragment)
        chain = next(known for known in self._manifest["chains"] if known["name"] == run["chain"])
        return networks.session(self.folder / "pieces", chain["chain"], run["first"], run["end"])

    def opinions(self, variant: str, *, partial: bool) -> list[Opinion]:
        """Return for each sample what a variant may answer; `partial`: with any of its branches missing."""
        outputs = self.outputs(variant)
        most = len(outputs) - 1 if partial else len(outputs)
        fewest = 1 if partial else len(outputs)
        found: list[tuple[set[int], float]] = [(set(), 0.0) for _ in self.images]
        for count in range(fewest, most + 1):
            for branches in itertools.combinations(outputs, count):
                classes = np.concatenate([names for names, _ in branches])
                shares = softmax(np.concatenate([logits for _, logits in branches], axis=1))
                for row, share in enumerate(shares):
                    best = float(share.max())
                    likely = {int(name) for name in classes[share >= best - CLOSE_CALL]}
                    found[row] = (found[row][0] | likely, max(found[row][1], best))
        return [Opinion(frozenset(classes), confidence) for classes, confidence in found]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def load(store: Path) -> dict[str, Application]:
    """Return the applications of a model store that have samples. Raises FileNotFoundError without any."""
    found = {
        path.parent.name: Application(path.parent.name, path.parent, np.load(path)["images"][:USED])
        for path in sorted(store.glob("*/samples.npz"))
    }
    if not found:
        raise FileNotFoundError(f"no samples.npz below {store}: name a model store with --store")
    return found


class Reference:
    """The right answers, computed when somebody asks for them."""

    def __init__(self, applications: dict[str, Application]) -> None:
        self._applications = applications
        self._known: dict[tuple[str, str, bool], list[Opinion]] = {}

    def __call__(self, application: str, variant: str, *, partial: bool) -> list[Opinion]:
        """Return the opinions on all samples of an application. Raises KeyError for an unknown variant."""
        key = (application, variant, partial)
        if key not in self._known:
            self._known[key] = self._applications[application].opinions(variant, partial=partial)
        return self._known[key]
