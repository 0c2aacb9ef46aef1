"""Outputs as edge nodes send them to the aggregator, computed directly from logits of a whole task."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitplace.messages.application import Application, Fragment, Stage, Variant
from splitplace.messages.frames import TensorHeader
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import ClassScore, StageReport, TaskPlaced, TaskResult
from splitplace.messages.tensors import TensorSpec
from tests.support.chains import nominal_chains, nominal_run
from tests.support.kinds import kind_named

CLASSES = 5


def logits_application(name: str = "app") -> Application:
    """An application of five classes without networks.

    Its variants: `whole`; `chain` of three stages; `star` of two branches; `tree`: a trunk with a branch of
    one stage (classes 3, 1) and a branch of two stages (classes 4, 0, 2).
    """
    image, features = TensorSpec(dtype="uint8", shape=(8,)), TensorSpec(dtype="float32", shape=(6,))
    fragments: dict[str, Fragment] = {}

    def stage(name: str, source: str = "input", classes: tuple[int, ...] = ()) -> Stage:
        fragments[name] = nominal_run(
            name,
            image if source == "input" else features,
            TensorSpec(dtype="float32", shape=(len(classes),)) if classes else features,
        )
        return Stage(name=name, fragment=fragments[name].sha256, source=source, classes=classes)

    def variant(name: str, *stages: Stage) -> Variant:
        return Variant(
            name=name, kind=kind_named(name), stages=stages, micro_batch=4, accuracy=0.9, accuracy_images=1000
        )

    every = tuple(range(CLASSES))
    variants = (
        variant("whole", stage("whole", "input", every)),
        variant("chain", stage("c0"), stage("c1", "c0"), stage("c2", "c1", (4, 3, 2, 1, 0))),
        variant("star", stage("s0", "input", (0, 2, 4)), stage("s1", "input", (3, 1))),
        variant(
            "tree",
            stage("trunk"),
            stage("left", "trunk", (3, 1)),
            stage("middle", "trunk"),
            stage("right", "middle", (4, 0, 2)),
        ),
    )
    return Application(
        name=name,
        title="Five classes",
        input=image,
        labels=tuple(f"class {index}" for index in every),
        default_deadline_ms=1000.0,
        reference_score=50.0,
        variants=variants,
        fragments=tuple(fragments.values()),
        chains=nominal_chains(fragments.values()),
    )


def outputs_of(
    logits: NDArray[Any],
    variant: str,
    *,
    micro_batch: int = 4,
    application: Application | None = None,
    **changes: object,
) -> list[tuple[TensorHeader, NDArray[Any]]]:
    """Every output that the nodes send for a task with these logits (shape `[batch, classes]`).

    The stage `s` of micro-batch `m` waits m + 0.25 ms and computes m + 0.5 ms on the node `node-s`; every
    tensor before the output had 100 encoded bytes. `changes` replace fields of every header.
    """
    known = application or logits_application()
    chosen = known.variant(variant)
    stages = {stage.name: stage for stage in chosen.stages}
    pieces = range(0, len(logits), micro_batch)
    made: list[tuple[TensorHeader, NDArray[Any]]] = []
    for number, start in enumerate(pieces):
        for sink in chosen.sinks:
            columns = np.ascontiguousarray(logits[start : start + micro_batch, list(sink.classes)])
            path: list[str] = []
            name = sink.name
            while name != "input":
                path.insert(0, name)
                name = stages[name].source
            fields = {
                "task": "sensor.1",
                "attempt": 1,
                "application": known.name,
                "variant": variant,
                "micro_batch": number,
                "micro_batches": len(pieces),
                "expires_ms": 1000.0,
                "dtype": str(columns.dtype),
                "shape": columns.shape,
                "codec": "raw",
                "encoded_bytes": columns.nbytes,
                "route": None,
                "stage": sink.name,
                "trace": tuple(
                    StageReport(
                        stage=step, node=f"node-{step}", queue_ms=number + 0.25, compute_ms=number + 0.5
                    )
                    for step in path
                ),
                "moved_bytes": 100 * len(path),
            }
            made.append((TensorHeader.model_validate(fields | changes), columns))
    return made


def placed_as(header: TensorHeader, application: Application | None = None) -> TaskPlaced:
    """The placement of an attempt whose outputs `outputs_of` gives: the stage `s` on the node `node-s`."""
    variant = (application or logits_application()).variant(header.variant)
    return TaskPlaced(
        task=header.task,
        attempt=header.attempt,
        application=header.application,
        variant=header.variant,
        batch=header.micro_batches,
        micro_batch=1,
        policy="test",
        stages=tuple(
            StagePlacement(stage=stage.name, node=f"node-{stage.name}", work_ms=1.0)
            for stage in variant.stages
        ),
        predicted_ms=None,
        reason="",
    )


def random_logits(batch: int, seed: int = 0) -> NDArray[np.float32]:
    """Shape `[batch, 5]`."""
    return np.random.default_rng(seed).normal(0, 3, (batch, CLASSES)).astype(np.float32)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Row by row, the direct way."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def wide_application(classes: int, name: str = "wide") -> Application:
    """An application of so many classes, with the one variant `whole`."""
    narrow = logits_application(name)
    fragment = nominal_run("wide", narrow.input, TensorSpec(dtype="float32", shape=(classes,)))
    stage = narrow.variant("whole").stages[0]
    whole = stage.model_copy(update={"fragment": fragment.sha256, "classes": tuple(range(classes))})
    changed = narrow.model_copy(
        update={
            "labels": tuple(f"class {index}" for index in range(classes)),
            "variants": (narrow.variant("whole").model_copy(update={"stages": (whole,)}),),
            "fragments": (fragment,),
            "chains": nominal_chains([fragment]),
        }
    )
    return Application.model_validate(dict(changed))


def all_scores(result: TaskResult) -> list[ClassScore]:
    """Return the scores of a result that has one for every input."""
    scores = [score for score in result.scores if score is not None]
    assert len(scores) == len(result.scores)
    return scores


def assert_right(result: TaskResult, logits: NDArray[Any]) -> None:
    """Check that every row has its best class, with the softmax of that as confidence."""
    probabilities = softmax(logits)
    assert len(result.scores) == len(logits)
    for row, score in enumerate(all_scores(result)):
        assert logits[row, score.index] == logits[row].max()
        assert score.confidence == pytest.approx(probabilities[row].max(), rel=1e-9)
