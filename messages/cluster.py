"""What nodes report, what they are asked to do, and the resource monitor's view of the cluster."""

from typing import Annotated, Literal

from pydantic import Field

from splitplace.messages.base import (
    Attempt,
    Bytes,
    Count,
    Message,
    Milliseconds,
    Name,
    NonNegative,
    Part,
    Ratio,
    Sha256,
    Text,
    Words,
)
from splitplace.messages.limits import MAX_DEALT, MAX_NODES, MAX_STAGES
from splitplace.messages.names import TaskKey
from splitplace.messages.pieces import PieceRun

BootId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Random, new at every start of a process: tells a restart from a reconnect."""

MAX_FRAGMENTS_LISTED = 256

LEAST_BANDWIDTH, MOST_BANDWIDTH = 1e-3, 1e9
Bandwidth = Annotated[float, Field(ge=LEAST_BANDWIDTH, le=MOST_BANDWIDTH, allow_inf_nan=False)]
"""In MB/s."""


class NodeStatus(Message):
    """Retained on `node/<id>/status`; the last will says offline."""

    node: Name
    boot: BootId
    online: bool
    settled: bool = False
    """Whether no other node of this name was heard for a while: a newcomer of the name then gives way."""


AtLeastOne = Annotated[float, Field(ge=1, le=4096, allow_inf_nan=False)]


class NodeSpeed(Part):
    """How fast a node computes, as measured when it was last idle."""

    score: NonNegative
    """Effective speed in GFLOP/s of the reference benchmark, one run at a time on all its cores."""
    threads: Annotated[int, Field(ge=1, le=4096)]
    """Cores that it computes on."""
    speed_up: AtLeastOne
    """Speed of one run at a time on all cores, against one thread."""
    together: AtLeastOne
    """Speed of as many runs at once as it has threads, against one at a time on all cores."""


class FragmentTiming(Part):
    """Moving averages of a fragment's measured time on a node, where one micro-batch runs at a time."""

    fragment: Sha256
    milliseconds_per_image: Milliseconds
    milliseconds_per_call: Milliseconds | None = None
    """Time beside that of the images; None: as described."""
    together: AtLeastOne = 1.0
    """Speed of as many runs at once as the node has threads, against one at a time."""
    output_ratio: Ratio | None = None
    """Encoded over raw bytes of its outputs; None = not known."""


class RunningJob(Part):
    """The micro-batch that a node computes at this moment."""

    fragment: Sha256
    age_ms: Milliseconds
    """Time that it runs, without time in which the whole process stood still."""
    expected_ms: Milliseconds


class LinkFigures(Part):
    """What a node has measured of its link to the broker; None = nothing yet, and nobody told it."""

    up_megabytes_per_second: NonNegative | None = None
    down_megabytes_per_second: NonNegative | None = None
    round_trip_ms: Milliseconds | None = None
    """From a small publication to its acknowledgement: the median of the most recent ones."""


class FragmentLoad(Part):
    """A fragment that a node fetches or loads at this moment."""

    fragment: Sha256
    left_ms: Milliseconds | None = None
    """Expected time until it can run; None = unknown."""


class PreparedFragment(Part):
    """A fragment whose prepared form lies on a node's disk, as that node has measured it."""

    fragment: Sha256
    private_bytes: Bytes
    """What the node reserves for it, out of the memory budget."""
    mapped_bytes: Bytes
    """Weights that it maps beside that: page cache, which gives way where memory is short."""


class NodeInfo(Message):
    """What a node offers: its capacity, what it holds and has measured; retained on `node/<id>/info`.

    Told again when something of it has changed enough to matter.
    """

    node: Name
    boot: BootId
    score: NonNegative
    """At start: effective GFLOP/s of the reference benchmark on all its cores, under its CPU share."""
    cores: Annotated[int, Field(ge=1, le=4096)]
    cpu_share: NonNegative | None
    """Share of one core it is limited to; None = unlimited."""
    memory_budget_bytes: Bytes
    """Bytes that loaded fragments may take together."""
    encode_megabytes_per_second: NonNegative
    """Speed of its tensor codec."""
    platform: Words
    software: Words
    """Versions of splitplace and ONNX Runtime."""
    loaded: Annotated[tuple[Sha256, ...], Field(max_length=MAX_FRAGMENTS_LISTED)]
    stored: Annotated[tuple[Sha256, ...], Field(max_length=MAX_FRAGMENTS_LISTED)]
    """Fragments on its disk."""
    prepared: Annotated[tuple[PreparedFragment, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """Fragments that it can map without preparing them first."""
    speed: NodeSpeed | None = None
    """None: as `score` says, one micro-batch at a time."""
    timings: Annotated[tuple[FragmentTiming, ...], Field(max_length=MAX_FRAGMENTS_LISTED)]
    load_ms: Milliseconds | None = None
    """Time to prepare and load a fragment whose files are there, beside that of its size; None before."""
    load_ms_per_megabyte: Milliseconds = 0.0
    """What each megabyte of its files adds."""
    map_ms: Milliseconds | None = None
    """Moving average of the time to load a fragment that is prepared; None before the first."""
    link: LinkFigures = LinkFigures()


class NodeVitals(Message):
    """A heartbeat on `node/<id>/vitals`: how busy a node is. Missing ones mean that it is dead."""

    node: Name
    boot: BootId
    uptime_s: NonNegative
    cpu_ratio: Ratio
    """Use of its CPU share since the last heartbeat."""
    resident_bytes: Bytes
    loaded_bytes: Bytes
    """Private memory reserved by loaded fragments, out of the memory budget."""
    mapped_bytes: Bytes = 0
    """Weights that loaded fragments map beside that: page cache."""
    queue_length: Count
    queue_ms: Milliseconds
    """Expected time until all waiting and running micro-batches are computed."""
    running: RunningJob | None = None
    """None while nothing is computed."""
    loading: Count = 0
    """Number of fragments that are being fetched or loaded."""
    loads: Annotated[tuple[FragmentLoad, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """These fragments."""
    trouble: Text = ""
    """What it cannot do, and why; empty if all is well."""
    executed: Count
    dropped: Count
    """Micro-batches that expired or were cancelled before they ran."""
    rejected: Count
    """Messages that were not understood or too big."""
    sent_bytes: Bytes
    received_bytes: Bytes
    temperature_celsius: Annotated[float, Field(ge=-100, le=300, allow_inf_nan=False)] | None
    throttled: bool | None
    energy_joules: NonNegative
    """Estimate since start, from the CPU use and a power curve (docs/metrics.md)."""


class PrepareFragments(Message):
    """A hint to fetch and load fragments before their tensors arrive; on `node/<id>/prepare`.

    Losing it is harmless: every tensor carries its route.
    """

    node: Name
    task: TaskKey
    attempt: Attempt
    fragments: Annotated[tuple[Sha256, ...], Field(min_length=1, max_length=MAX_STAGES)]
    application: Name | None = None
    """Whose chains the runs are of."""
    runs: Annotated[tuple[PieceRun | None, ...], Field(max_length=MAX_STAGES)] = ()
    """The pieces of each fragment; None where a manifest describes it."""
    when_idle: bool = False
    """Whether no task needs them yet: load them into free memory while nothing is to be computed."""
    gives_way: Annotated[tuple[Sha256, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """With `when_idle`: loaded fragments that make room for them unless a task uses them."""


class CancelTask(Message):
    """Drop the waiting work of a task, up to and including an attempt; on `node/<id>/cancel`."""

    node: Name
    task: TaskKey
    attempt: Attempt
    micro_batches: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=MAX_DEALT)], ...], Field(max_length=MAX_DEALT)
    ] = ()
    """Only these of the attempt, where they wait for their first run: they are run elsewhere. Empty = all."""


FailureKind = Literal["memory", "fragment", "input", "runtime", "busy"]
"""Does not fit the budget; could not be fetched; tensor does not fit; crashed while running; queue full."""


class StageFailure(Message):
    """A node could not run a stage; on `node/<id>/failure`."""

    node: Name
    task: TaskKey
    attempt: Attempt
    stage: Name
    kind: FailureKind
    reason: Text


class NodeLoad(Part):
    """How busy a node is."""

    node: Name
    silent_ms: Milliseconds
    """Since its last heartbeat."""
    queue_ms: Milliseconds
    queue_length: Count
    cpu_ratio: Ratio
    loads: Annotated[tuple[FragmentLoad, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """Fragments that are being fetched or loaded there."""


class NodeState(Message):
    """The resource monitor's view of one node.

    It is retained on `cluster/node/<id>` as that of an idle node: how busy it is stands in `cluster/members`.
    """

    node: Name
    boot: BootId
    online: bool
    silent_ms: Milliseconds = 0.0
    """Since its last heartbeat; 0 where it is idle."""
    score: NonNegative
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """Micro-batches that it may compute at once."""
    together: AtLeastOne = 1.0
    """Speed of so many at once, against one at a time on all its cores."""
    memory_budget_bytes: Bytes
    loaded: Annotated[tuple[Sha256, ...], Field(max_length=MAX_FRAGMENTS_LISTED)]
    prepared: Annotated[tuple[PreparedFragment, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """Fragments that it can map without preparing them first."""
    mapped_bytes: Bytes = 0
    """Weights that its loaded fragments map beside the memory budget."""
    queue_ms: Milliseconds = 0.0
    queue_length: Count = 0
    cpu_ratio: Ratio = 0.0
    link_megabytes_per_second: NonNegative
    """Speed of its link, from the broker."""
    up_megabytes_per_second: NonNegative | None = None
    """Speed of its link towards the broker; None = as the other direction."""
    round_trip_ms: Milliseconds = 0.0
    """Between it and the broker, without the transfer of bytes."""
    timings: Annotated[tuple[FragmentTiming, ...], Field(max_length=MAX_FRAGMENTS_LISTED)]
    load_ms: Milliseconds | None = None
    """Time to prepare and load a fragment whose files are there, beside that of its size; None before."""
    load_ms_per_megabyte: Milliseconds = 0.0
    """What each megabyte of its files adds."""
    stored: Annotated[tuple[Sha256, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """Fragments whose files it has and that are not loaded."""
    map_ms: Milliseconds | None = None
    """Moving average of the time to load a fragment that is prepared there; None before the first."""
    loads: Annotated[tuple[FragmentLoad, ...], Field(max_length=MAX_FRAGMENTS_LISTED)] = ()
    """Fragments that are being fetched or loaded there."""
    stalled: Text = ""
    """Why it counts as stalled, which is to beat without computing; empty if it does not."""
    trouble: Text = ""
    """What it says it cannot do, and why; empty if all is well."""

    @property
    def up(self) -> float:
        """Speed of its link towards the broker, in MB/s."""
        known = self.up_megabytes_per_second
        return self.link_megabytes_per_second if known is None else known

    @property
    def latency_ms(self) -> float:
        """Time between it and the broker, one way, without the transfer of bytes."""
        return self.round_trip_ms / 2

    @property
    def loading(self) -> frozenset[str]:
        """Hashes of the fragments that are being fetched or loaded there."""
        return frozenset(load.fragment for load in self.loads)


class ClusterMembers(Message):
    """Which nodes there are, and how busy they are; retained on `cluster/members`.

    It ends what the resource monitor says at one moment. Who is not named is gone, whatever is retained.
    """

    sequence: Count
    hop_ms: Milliseconds | None = None
    """Time from process to process through the broker, without bytes; None = not measured yet."""
    broker_megabytes_per_second: Bandwidth | None = None
    """Speed of the link of the broker's machine; None = it is never what limits a transfer."""
    nodes: Annotated[tuple[Name, ...], Field(max_length=MAX_NODES)]
    busy: Annotated[tuple[NodeLoad, ...], Field(max_length=MAX_NODES)]
    """Nodes that have something to do. All others are idle."""


class ClusterState(Message):
    """All nodes at one moment, put together from what the resource monitor says; on no topic."""

    sequence: Count
    hop_ms: Milliseconds | None = None
    """Time from process to process through the broker, without bytes; None = not measured yet."""
    broker_megabytes_per_second: Bandwidth | None = None
    """Speed of the link of the broker's machine; None = it is never what limits a transfer."""
    nodes: Annotated[tuple[NodeState, ...], Field(max_length=MAX_NODES)]

    @property
    def usable(self) -> tuple[NodeState, ...]:
        """Nodes that may get work: those online and not stalled; all that are online if all are stalled."""
        online = tuple([node for node in self.nodes if node.online])
        return tuple([node for node in online if not node.stalled]) or online


class ServiceStatus(Message):
    """Retained on `service/<name>/status`; the last will says offline."""

    service: Name
    boot: BootId
    online: bool
    software: Words
    settled: bool = False
    """Whether no other service of this name was heard for a while: a newcomer of the name then gives way."""


class FragmentRequest(Message):
    """A node asks for chunks of a file; on `fragment/<sha256>/request`.

    Chunks come on a topic that all nodes share, so a chunk that one node asked for serves every listener.
    """

    node: Name
    fragment: Sha256
    first_chunk: Count
    chunks: Annotated[int, Field(ge=1, le=64)]
    follows: bool = False
    """Whether the node has listened since an earlier request: chunks sent since then are not sent again."""


class FragmentMissing(Message):
    """The model store does not have a file; on `fragment/<sha256>/missing`."""

    fragment: Sha256
    reason: Text
