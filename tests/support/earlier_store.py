"""An application as SplitPlace 0.2 stored it: each fragment is one ONNX file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import sha256_of
from splitplace.workshop.cutting.layer_split import cut
from splitplace.workshop.onnx.file import file_content
from tests.support.small_pieces import CHANNELS, SIDE, model_of, small_convolutions, weight

IMAGE = TensorSpec(dtype="float32", shape=(3, SIDE, SIDE))
BETWEEN = TensorSpec(dtype="float32", shape=(CHANNELS, SIDE, SIDE))
CODE = TensorSpec(dtype="uint8", shape=(CHANNELS, SIDE, SIDE))


def logits(classes: int) -> TensorSpec:
    return TensorSpec(dtype="float32", shape=(classes,))


def narrow_network() -> onnx.ModelProto:
    """A network of its own, with bytes between its halves, one weight in a node and one made by a shape."""
    random = np.random.default_rng(5)
    first = numpy_helper.from_array((0.2 * random.standard_normal((CHANNELS, 3, 3, 3))).astype(np.float32))
    nodes = [
        helper.make_node("Constant", [], ["kernel"], value=first),
        helper.make_node("Conv", ["images", "kernel"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Cast", ["r"], ["code"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["code"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ConstantOfShape", ["ones"], ["bias"]),
        helper.make_node("Add", ["wide", "bias"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "classifier"], ["logits"]),
    ]
    weights = [
        weight("classifier", random.standard_normal((CHANNELS, 4))),
        numpy_helper.from_array(np.array([1, CHANNELS, SIDE, SIDE], np.int64), "ones"),
    ]
    return model_of(nodes, weights, [3, SIDE, SIDE], [4])


def branch(seed: int) -> onnx.ModelProto:
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    return model_of(nodes, [weight("w", random.standard_normal((2, 3, 3, 3)))], [3, SIDE, SIDE], [2])


@dataclass(frozen=True)
class Earlier:
    """What lies in the store."""

    folder: Path
    manifest: dict[str, Any]

    def file(self, sha256: str) -> Path:
        return self.folder / "fragments" / f"{sha256}.onnx"


def build_earlier_application(root: Path, name: str = "old") -> Earlier:
    """Write `whole` and `layer` of one network, a chain of another, and two branches into a store."""
    folder = root / name / "fragments"
    folder.mkdir(parents=True)
    fragments: list[dict[str, Any]] = []

    def stage(
        name: str,
        model: onnx.ModelProto,
        ends: tuple[TensorSpec, TensorSpec],
        source: str = "input",
        **more: Any,
    ) -> dict[str, Any]:
        content = file_content(model)
        sha256 = sha256_of(content)
        (folder / f"{sha256}.onnx").write_bytes(content)
        fragments.append(
            {
                "sha256": sha256,
                "file_bytes": len(content),
                "weight_bytes": 1000,
                "peak_memory_bytes": 2000,
                "flops_per_image": 1.0,
                "milliseconds_per_image": 1.5 + len(fragments),
                "milliseconds_per_call": 0.25,
                "input": ends[0].model_dump(mode="json"),
                "output": ends[1].model_dump(mode="json"),
            }
        )
        return {"name": name, "fragment": sha256, "source": source} | more

    def chain(
        name: str, models: Sequence[onnx.ModelProto], between: Sequence[TensorSpec]
    ) -> list[dict[str, Any]]:
        specs = [IMAGE, *between, logits(4)]
        stages = [
            stage(
                f"{name}-{index}",
                model,
                (specs[index], specs[index + 1]),
                f"{name}-{index - 1}" if index else "input",
            )
            for index, model in enumerate(models)
        ]
        stages[-1]["classes"] = [0, 1, 2, 3]
        return stages

    def variant(name: str, kind: str, stages: list[dict[str, Any]], accuracy: float) -> dict[str, Any]:
        figures = {"micro_batch": 4, "accuracy": accuracy, "accuracy_images": 100}
        return {"name": name, "kind": kind, "stages": stages} | figures

    network, other = small_convolutions(), narrow_network()
    branches = [
        stage(
            f"branch-{index}",
            branch(index),
            (IMAGE, logits(2)),
            classes=[2 * index, 2 * index + 1],
            accuracy=0.75,
        )
        for index in range(2)
    ]
    manifest = {
        "version": 1,
        "name": name,
        "title": "As it was",
        "input": IMAGE.model_dump(mode="json"),
        "labels": ["a", "b", "c", "d"],
        "default_deadline_ms": 250.0,
        "reference_score": 66.0,
        "variants": [
            variant(
                "whole", "whole", [stage("whole", network, (IMAGE, logits(4)), classes=[0, 1, 2, 3])], 0.875
            ),
            variant("layer", "layer", chain("layer", cut(network, ["r0", "r2"]), [BETWEEN, BETWEEN]), 0.875),
            variant("narrow", "layer", chain("narrow", cut(other, ["code"]), [CODE]), 0.5),
            variant("semantic", "semantic", branches, 0.625),
        ],
        "fragments": fragments,
    }
    (root / name / "manifest.json").write_text(json.dumps(manifest))
    return Earlier(root / name, manifest)
