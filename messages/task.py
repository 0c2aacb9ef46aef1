"""What a sensor sends and what it gets back.

A sensor may publish JSON (inputs in base64), msgpack (inputs as raw bytes) or a bare picture file. Names it
does not give are taken from the topic (`task/<application>/<client>/<task>`) or from MQTT 5 user properties
(`client`, `task`, `deadline_ms`); otherwise the gateway makes them up.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from splitplace.messages.application import VariantKind
from splitplace.messages.base import (
    SENSOR_VERSION,
    Attempt,
    Count,
    Message,
    Milliseconds,
    Name,
    NonNegative,
    Part,
    Ratio,
    SignedMilliseconds,
    Text,
)
from splitplace.messages.findings import AnyPrediction, Finding
from splitplace.messages.limits import (
    MAX_BATCH,
    MAX_BUNDLE_TENSORS,
    MAX_DEADLINE_MS,
    MAX_FOUND,
    MAX_MICRO_BATCHES,
    MAX_PLACED,
    MAX_REPLICAS,
    MAX_STAGES,
    MAX_TENSOR_RANK,
    MIN_DEADLINE_MS,
)
from splitplace.messages.names import SensorName, TaskKey
from splitplace.messages.pictures import Fit
from splitplace.messages.placing import BatchSize, ForeseenPlacement, StagePlacement
from splitplace.messages.tensors import DType, TensorName
from splitplace.messages.trace_context import TraceParent

Deadline = Annotated[float, Field(ge=MIN_DEADLINE_MS, le=MAX_DEADLINE_MS, allow_inf_nan=False)]
ClassLabel = Annotated[int, Field(ge=0, le=100_000)]
SentShape = Annotated[
    tuple[Annotated[int, Field(ge=0, le=1 << 20)], ...], Field(max_length=MAX_TENSOR_RANK + 1)
]
"""Shape of an array of a task, as its sender says it."""


class TaskTensor(Part):
    """One of the inputs of a task, by its name. A tensor of an answer may be sent again as it came."""

    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")

    name: TensorName
    dtype: DType | None = None
    shape: SentShape | None = None
    """Batch first; without a batch it is one of a batch of one."""
    codec: Literal["raw", "zstd"] = "raw"
    data: bytes | None = None
    """C-ordered, little-endian: base64 in JSON, bytes in msgpack."""
    images: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=MAX_BATCH)] | None = None
    """Picture files instead, one for each input of the batch."""

    @model_validator(mode="after")
    def _has_one_content(self) -> Self:
        if (self.data is None) == (self.images is None):
            raise ValueError(f"{self.name[:80]!r}: give `data` (raw array) or `images` (picture files)")
        return self


class TaskRequest(Message):
    """A task as a sensor publishes it (JSON or msgpack) on `task/<application>`.

    `inputs` are the raw bytes of a C-ordered array of `shape`, batch first (base64 in JSON, bytes in
    msgpack), zstd-compressed where `codec` says so. Alternatively `images` holds one picture file per input
    (PNG, JPEG, WebP, GIF, BMP or TIFF), or `sound` a WAV file, whose windows are the inputs. Only one of
    these may be given. An application that takes several tensors gets them in `tensors`, as arrays or picture
    files; the first of them may be in `images`, `inputs` or `sound`. Fields that are not known are ignored.
    """

    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")

    version: Literal[1] = SENSOR_VERSION  # type: ignore[assignment]

    task: SensorName | None = None
    """The sensor's id for it. Sent again with the same inputs it gets the same answer, not a second run."""
    client: SensorName | None = None
    deadline_ms: Deadline | None = None
    inputs: bytes | None = None
    shape: SentShape | None = None
    dtype: DType | None = None
    codec: Literal["raw", "zstd"] = "raw"
    images: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=MAX_BATCH)] | None = None
    sound: bytes | None = None
    """A WAV file of the rate that the application takes."""
    tensors: Annotated[tuple[TaskTensor, ...], Field(max_length=MAX_BUNDLE_TENSORS)] | None = None
    """Inputs by their names, as the manifest gives them. States that are left out are zeros."""
    labels: Annotated[tuple[ClassLabel, ...], Field(max_length=MAX_BATCH)] | None = None
    """The true class of each input, where the sensor knows it. Measures accuracy; no decision uses it."""
    fit: Fit | None = None
    """How `images` are fitted into the network's input; None = as the application says."""


AnswerStatus = Literal["answered", "expired", "failed", "refused", "invalid"]
"""`refused` (hopeless, or the system is overloaded) and `invalid` (not understood) tasks were never run."""


class StageReport(Part):
    """Cost of one stage on one node for one task, summed over its micro-batches there."""

    stage: Name
    node: Name
    queue_ms: Milliseconds
    compute_ms: Milliseconds


class Answer(Message):
    """The one terminal answer of a task, on `answer/<client>/<task>` or the sender's response topic."""

    version: Literal[1] = SENSOR_VERSION  # type: ignore[assignment]
    task: SensorName
    client: SensorName
    application: Name | None
    status: AnswerStatus
    reason: Text
    """Why this status, and what to do about it; for an answer, why the task was run this way."""
    predictions: Annotated[tuple[AnyPrediction | None, ...], Field(max_length=MAX_BATCH)] = ()
    """One for each input; null where the network's output for it is not finite."""
    decision: Name | None = None
    """The variant that was run."""
    nodes: Annotated[tuple[Name, ...], Field(max_length=MAX_PLACED)] = ()
    """The nodes that took part, in the order of the stages."""
    deadline_ms: Milliseconds | None = None
    response_ms: Milliseconds | None = None
    """From the arrival at the gateway to this answer, on the gateway's clock."""
    on_time: bool = False
    attempt: Attempt | None = None
    partial: bool = False
    """Whether some classes could not be predicted for some inputs; see `coverage` and `warnings`."""
    coverage: Ratio | None = None
    """Share of the classes that could be predicted, 0 to 1, mean over inputs; None without a result."""
    repeated: bool = False
    """Whether this is the stored answer to a task that was sent again."""
    warnings: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """What the sender should fix, although the task was taken."""


class TaskAccepted(Message):
    """The journal holds the task; decide how to split it. On `job/<task>/accepted`."""

    task: TaskKey
    attempt: Attempt
    application: Name
    batch: BatchSize
    input_bytes: Count
    deadline_ms: Milliseconds
    slack_ms: SignedMilliseconds
    """Remaining until the deadline when this was sent."""
    avoid: Annotated[tuple[Name, ...], Field(max_length=MAX_STAGES)] = ()
    """Nodes that failed this task before."""
    grace_ms: Milliseconds | None = None
    """How long after the deadline a late answer is still given; None = unlimited."""


class VariantEstimate(Part):
    """The prediction for one variant at the time of the decision."""

    variant: Name
    kind: VariantKind
    accuracy: Ratio
    predicted_ms: Milliseconds | None
    """None where it cannot run now."""
    note: Text
    work_ms: Milliseconds | None = None
    """Computing time of all its stages together; None where it cannot run now."""
    burden_ms: Milliseconds | None = None
    """The same, or the time of its tensors on the broker's link times all nodes, if that is more."""
    wait_ms: Milliseconds | None = None
    """Part of the prediction that is waiting for other tasks; None = unknown."""
    score: Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)] | None = None
    """The policy's score in its own units, higher is better; None where it gave none."""


class TaskDecided(Message):
    """How to split a task, and why. On `job/<task>/decided`."""

    task: TaskKey
    attempt: Attempt
    application: Name
    batch: BatchSize
    slack_ms: SignedMilliseconds
    policy: Name
    variant: Name | None
    """None refuses the task."""
    reason: Text
    predicted_ms: Milliseconds | None
    alternatives: Annotated[tuple[VariantEstimate, ...], Field(max_length=32)]
    avoid: Annotated[tuple[Name, ...], Field(max_length=MAX_STAGES)] = ()
    deadline_ms: Milliseconds | None = None
    """The task's deadline, from its arrival; `slack_ms` of it was left at the decision."""
    load_ms: Milliseconds = 0.0
    """Mean backlog of the live nodes, or that of the broker's link if it is longer."""
    link_megabytes_per_second: NonNegative = 0.0
    """Mean bandwidth of the live nodes."""
    grace_ms: Milliseconds | None = None
    """How long after the deadline a late answer is still given; None = unlimited."""
    propensity: Ratio = 1.0
    """Probability of this choice in this context; estimates of other policies divide by it."""
    explored: bool = False
    """Whether the policy chose it to learn, although another choice looked better."""
    promised: Ratio | None = None
    """Probability of an answer in time, corrected by how often the same was true before; None = not said."""
    foreseen: ForeseenPlacement | None = None
    """Where the splitter expects it to run; a hint, which the placer uses while nothing has changed."""

    @property
    def scores(self) -> dict[str, float]:
        """The policy's score of each variant that it considered."""
        return {
            estimate.variant: estimate.score for estimate in self.alternatives if estimate.score is not None
        }


class TaskPlaced(Message):
    """Where each stage of a task runs. On `job/<task>/placed`."""

    task: TaskKey
    attempt: Attempt
    application: Name
    variant: Name
    batch: BatchSize
    micro_batch: BatchSize
    policy: Name
    stages: Annotated[tuple[StagePlacement, ...], Field(max_length=MAX_PLACED)]
    """Empty when no feasible placement exists now; the reason says what is missing. A stage that several
    nodes share stands here once for each of them."""
    predicted_ms: Milliseconds | None
    reason: Text

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that take part, each once, in the order of the stages."""
        return tuple(dict.fromkeys(stage.node for stage in self.stages))

    @property
    def micro_batch_count(self) -> int:
        """Number of micro-batches."""
        return -(-self.batch // self.micro_batch)

    def runs(self, stage: str, micro_batch: int, node: str) -> bool:
        """Whether a node runs a stage on a micro-batch."""
        return any(
            (placed.stage, placed.node) == (stage, node)
            and (placed.micro_batches is None or micro_batch in placed.micro_batches)
            for placed in self.stages
        )

    def paths(self) -> Sequence[Mapping[str, str]]:
        """Return for each micro-batch the node of every stage."""
        everywhere = {placed.stage: placed.node for placed in self.stages if placed.micro_batches is None}
        if len(everywhere) == len(self.stages):
            return (everywhere,) * self.micro_batch_count
        paths = [dict(everywhere) for _ in range(self.micro_batch_count)]
        for placed in self.stages:
            for number in placed.micro_batches or ():
                paths[number][placed.stage] = placed.node
        return paths

    @model_validator(mode="after")
    def _is_dealt_once(self) -> Self:
        """Each stage stands on one node, or has replicas that share every micro-batch once."""
        shares: dict[str, list[StagePlacement]] = {}
        for placed in self.stages:
            shares.setdefault(placed.stage, []).append(placed)
        for stage, replicas in shares.items():
            if len(replicas) == 1 and replicas[0].micro_batches is None:
                continue
            numbers = sorted(number for replica in replicas for number in replica.micro_batches or (-1,))
            if numbers != list(range(self.micro_batch_count)):
                raise ValueError(f"stage {stage!r}: its replicas must share each micro-batch once")
            nodes = {replica.node for replica in replicas}
            if len(nodes) < len(replicas) or len(replicas) > MAX_REPLICAS:
                raise ValueError(f"stage {stage!r}: needs up to {MAX_REPLICAS} replicas on different nodes")
        return self


class ClassShare(Part):
    """A class and its confidence."""

    index: ClassLabel
    confidence: Ratio


class ClassScore(ClassShare):
    """The winning class of one input."""

    top: Annotated[tuple[ClassShare, ...], Field(max_length=MAX_FOUND)] = ()
    """The best classes, where the application asks for several."""


class TaskResult(Message):
    """The merged outputs of a task. On `job/<task>/result`."""

    task: TaskKey
    attempt: Attempt
    application: Name
    variant: Name
    scores: Annotated[tuple[ClassScore | None, ...], Field(max_length=MAX_BATCH)] = ()
    """One for each input of a classification; None where the outputs are not finite."""
    findings: Annotated[tuple[Finding | None, ...], Field(max_length=MAX_BATCH)] = ()
    """One for each input of an application of another kind; None where the outputs are not finite."""
    stages: Annotated[tuple[StageReport, ...], Field(max_length=MAX_PLACED)]
    micro_batches: Annotated[int, Field(ge=1, le=MAX_MICRO_BATCHES)]
    moved_bytes: Count
    """Encoded tensor bytes that crossed the broker for this task's outputs and between its stages."""
    coverage: Ratio = 1.0
    """Share of the classes whose branch is merged here, mean over inputs; below 1 the result is partial."""
    finite: Ratio = 1.0
    """Share of the merged outputs that are finite; those with NaN or infinity are left out."""

    @model_validator(mode="after")
    def _has_one_for_each_input(self) -> Self:
        if bool(self.scores) == bool(self.findings):
            raise ValueError("a result has either scores or findings")
        return self

    @property
    def inputs(self) -> tuple[ClassScore | Finding | None, ...]:
        """What was found in each input, of whatever kind."""
        return self.scores or self.findings

    @property
    def predicted(self) -> float:
        """Share of the classes that could be predicted, 0 to 1, mean over inputs."""
        return self.coverage * self.finite


class SettleTask(Message):
    """A task nears its deadline: send the partial result. On `job/<task>/settle`."""

    task: TaskKey


class TaskFinished(Message):
    """A task has its terminal answer in the journal. On `job/<task>/finished`; policies learn from it.

    Tasks that intake refused were never accepted and have no such message; `metrics/gateway` counts them.
    """

    task: TaskKey
    attempt: Attempt
    application: Name
    batch: BatchSize
    status: Literal["answered", "expired", "failed", "refused"]
    reason: Text
    variant: Name | None
    nodes: Annotated[tuple[Name, ...], Field(max_length=MAX_PLACED)] = ()
    deadline_ms: Milliseconds
    response_ms: Milliseconds
    predicted_ms: Milliseconds | None
    after_decision_ms: Milliseconds | None = None
    """From the decision of the last attempt to the answer: the time that `predicted_ms` foretells."""
    promised: Ratio | None = None
    """Probability of an answer in time that the last decision promised; None = it promised none."""
    on_time: bool
    accuracy: Ratio | None
    """Share of right labels where the sensor sent the truth; None otherwise."""
    variant_accuracy: Ratio | None
    """The variant's accuracy measured on the test set, times the coverage of a partial answer."""
    coverage: Ratio | None = None
    """Share of the classes that could be predicted, 0 to 1, mean over inputs; None without a result."""
    stages: Annotated[tuple[StageReport, ...], Field(max_length=MAX_PLACED)] = ()
    moved_bytes: Count = 0
    traceparent: TraceParent | None = None
    """The sensor's span, where it sent one: parent of the task's trace."""

    @property
    def predicted_ratio(self) -> float | None:
        """Actual time over the predicted one; None if it was not answered in full, or not predicted."""
        if not self.in_full or not self.predicted_ms or self.after_decision_ms is None:
            return None
        return self.after_decision_ms / self.predicted_ms

    @property
    def in_full(self) -> bool:
        """Whether it was answered by all branches: only then does the response tell how long that takes."""
        return self.status == "answered" and (self.coverage is None or self.coverage == 1)
