"""An application as SplitPlace 0.2 stored it: each fragment is one ONNX file."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.application import Application, Fragment, Stage, TensorSpec, Variant
from splitplace.storage.model_store import ModelStore, sha256_of
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


def build_earlier_application(root: Path, name: str = "old") -> Application:
    """Write `whole` and `layer` of one network, a chain of another, and two branches into a store."""
    network, other = small_convolutions(), narrow_network()
    stages: dict[str, tuple[onnx.ModelProto, TensorSpec, TensorSpec]] = {"whole": (network, IMAGE, logits(4))}
    ends = [IMAGE, BETWEEN, BETWEEN, logits(4)]
    for index, part in enumerate(cut(network, ["r0", "r2"])):
        stages[f"layer-{index}"] = (part, ends[index], ends[index + 1])
    first, second = cut(other, ["code"])
    stages["narrow-0"], stages["narrow-1"] = (first, IMAGE, CODE), (second, CODE, logits(4))
    for index in range(2):
        stages[f"branch-{index}"] = (branch(index), IMAGE, logits(2))
    contents = {stage: file_content(model) for stage, (model, _, _) in stages.items()}
    fragments = {
        stage: Fragment(
            sha256=sha256_of(contents[stage]),
            file_bytes=len(contents[stage]),
            weight_bytes=1000,
            peak_memory_bytes=2000,
            flops_per_image=1.0,
            milliseconds_per_image=1.5 + index,
            milliseconds_per_call=0.25,
            input=source,
            output=result,
        )
        for index, (stage, (_, source, result)) in enumerate(stages.items())
    }

    def chain(variant: str, count: int, accuracy: float) -> Variant:
        return Variant(
            name=variant,
            kind="layer",
            stages=tuple(
                Stage(
                    name=f"{variant}-{index}",
                    fragment=fragments[f"{variant}-{index}"].sha256,
                    source=f"{variant}-{index - 1}" if index else "input",
                    classes=(0, 1, 2, 3) if index == count - 1 else (),
                )
                for index in range(count)
            ),
            micro_batch=4,
            accuracy=accuracy,
            accuracy_images=100,
        )

    whole = Stage(name="whole", fragment=fragments["whole"].sha256, source="input", classes=(0, 1, 2, 3))
    branches = tuple(
        Stage(
            name=f"branch-{index}",
            fragment=fragments[f"branch-{index}"].sha256,
            source="input",
            classes=(2 * index, 2 * index + 1),
            accuracy=0.75,
        )
        for index in range(2)
    )
    application = Application(
        name=name,
        title="As it was",
        input=IMAGE,
        labels=("a", "b", "c", "d"),
        default_deadline_ms=250.0,
        reference_score=66.0,
        variants=(
            Variant(
                name="whole",
                kind="whole",
                stages=(whole,),
                micro_batch=8,
                accuracy=0.875,
                accuracy_images=100,
            ),
            chain("layer", 3, 0.875),
            chain("narrow", 2, 0.5),
            Variant(
                name="semantic",
                kind="semantic",
                stages=branches,
                micro_batch=4,
                accuracy=0.625,
                accuracy_images=100,
            ),
        ),
        fragments=tuple(fragments.values()),
    )
    ModelStore(root).save(application, contents.values())
    return application
