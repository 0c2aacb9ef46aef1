"""Predict when all micro-batches of a task are done: one prediction for splitter, placer and simulator.

A variant is an out-tree of stages, so nothing here knows a chain from a star. The model:

* A call of a fragment on n images takes `(milliseconds_per_call + n * milliseconds_per_image) *
  reference_score / score` on a node of that score. Once the node has measured its own time per image, that
  replaces the scaled `milliseconds_per_image`.
* A tensor needs `bytes / bandwidth` of the slower of both links, one micro-batch after the other. One chunk
  of it needs the time of the faster link as well, because the broker sends on what it has in full
  (`relay_ms`). Then come the way between broker and nodes, and a hop (`ClusterView.hop_ms`) for broker, codec
  and event loops. Two stages on the same node also send their outputs through the broker. Outputs count as
  large as nodes have found them after compression.
* All tensors that this job brings to a node cross its link one after the other, and after those of tasks
  that were placed before. Where the bandwidth of the broker's link is known, all tasks share it
  (`ClusterView.broker_byte_ms`), and all tensors of a job share what the job has of it.
* A node does one call at a time, in the order of arrival. Of two stages that share a node, the later one
  begins when the earlier one is done with all micro-batches: exact if the inputs wait for the node,
  pessimistic if the node waits for its inputs.
* A fragment that a node has not loaded holds up its first call (`ClusterView.fragment_ready_ms`).
* A stage may stand on several nodes, its replicas: `dealing.py` says which takes which micro-batch.
* The answer is complete when the last micro-batch of the last sink has reached the aggregator, and the
  sensor has it two hops later at most (aggregator, gateway): `RETURN_HOPS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from splitplace.messages.application import INPUT, Fragment, Stage
from splitplace.messages.cluster import NodeState
from splitplace.policies.broker_link import BrokerLink
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cost import RETURN_HOPS, relay_ms, transfer_ms, work_ms
from splitplace.policies.dealing import Dealt, ReadyInput, Replica, deal, numbers_by_node
from splitplace.policies.job import Job
from splitplace.policies.offer import Estimate, Offer, PlacedShare, Tensors

__all__ = ["Estimate", "Job", "Offer", "PlacedShare", "StageSchedule", "on_nodes", "predict", "scheduled"]


@dataclass(slots=True)
class StageSchedule:
    """A job whose stages are put on nodes one by one, in the order of the variant.

    Args:
        cluster: what the nodes are busy with.
        job: what is to run.
        now_ms: the present moment.
        start_ms: when the gateway sends the inputs.
        due_ms: the task's deadline.
        idle: as if nodes and links had nothing else to do.
    """

    cluster: ClusterView
    job: Job
    now_ms: float
    start_ms: float
    due_ms: float = inf
    idle: bool = False
    offers: dict[str, Offer] = field(default_factory=dict)
    """By stage."""
    broker: BrokerLink = field(init=False)
    """What the job has of the broker's link."""
    _free_ms: dict[str, float] = field(default_factory=dict)
    _received_ms: dict[str, float] = field(default_factory=dict)
    """When the link of each node is free of this job's tensors."""
    _brought: dict[str, dict[str, Fragment]] = field(default_factory=dict)
    """Fragments of this job on each node, by hash."""

    def __post_init__(self) -> None:
        size = self.job.carried_bytes
        self.broker = BrokerLink(self.cluster.broker_byte_ms(size, self.now_ms, idle=self.idle))

    def fits(self, stage: Stage, node: str) -> bool:
        """Whether the node has memory for the stage's fragment, beside those that are needed there."""
        cluster, brought = self.cluster, self._brought.get(node, {})
        if stage.fragment in brought or cluster.shares(node, stage.fragment):
            return True
        added = [
            cluster.needed_bytes(node, fragment)
            for sha256, fragment in brought.items()
            if not cluster.shares(node, sha256)
        ]
        needed = cluster.needed_bytes(node, self.job.fragments[stage.name])
        return needed + sum(added) <= cluster.free_bytes(node)

    def free_ms(self, node: str) -> float:
        """Return when the node is free, after its earlier work and what this schedule has put on it."""
        free_ms = self._free_ms.get(node)
        if free_ms is None:
            free_ms = (
                self.now_ms if self.idle else self.cluster.ready_ms(node, self.now_ms, due_ms=self.due_ms)
            )
            self._free_ms[node] = free_ms
        return free_ms

    def received_ms(self, node: str) -> float:
        """Return when a node's link has brought what was placed before, and what this schedule has put."""
        received_ms = self._received_ms.get(node)
        if received_ms is None:
            received_ms = self.now_ms if self.idle else self.cluster.tracked(node).link.free_ms
        return received_ms

    def offer(self, stage: Stage, node: str) -> Offer:
        """Return the expected times of a stage on a node, given the stages that were put before."""
        job = self.job
        fragment, sizes = job.fragments[stage.name], job.micro_batches
        known = self.cluster.tracked(node)
        each_call_ms, each_image_ms = known.speed(fragment, job.application.reference_score, len(sizes))
        state = known.state
        input_ms, hop_ms = self._way(stage, fragment, state)
        if stage.source == INPUT:
            sources: Sequence[float] = (self.start_ms,) * len(sizes)
        else:
            source = self.offers[stage.source]
            if len(source.shares) > 1:
                return self.offer_shared(stage, (node,))
            sources = source.finish_ms
        tensors: Tensors = ((), ())
        if self.broker.byte_ms:
            image_bytes = self._image_bytes(stage, fragment)
            tensors = sources, [images * image_bytes for images in sizes]
            sources = self._held_up(*tensors, [images * input_ms for images in sizes])
        free_ms = self.free_ms(node)
        if stage.fragment not in known.loaded:
            free_ms = max(free_ms, self.cluster.fragment_ready_ms(node, fragment, self.now_ms))
        received_ms = self.received_ms(node)
        finish_ms = []
        for source_ms, images in zip(sources, sizes, strict=True):
            # Conditions instead of max(): the inner loop of every decision, a fifth faster so.
            received_ms = source_ms if source_ms > received_ms else received_ms  # noqa: FURB136
            received_ms += images * input_ms
            arrived_ms = received_ms + hop_ms
            free_ms = arrived_ms if arrived_ms > free_ms else free_ms  # noqa: FURB136
            free_ms += each_call_ms + images * each_image_ms
            finish_ms.append(free_ms)
        end_ms = finish_ms[-1]
        if stage.name in job.sinks:
            output_ms = transfer_ms(fragment.output_bytes_per_image, state.up)
            sent_ms = 0.0
            for ready_ms, images in zip(finish_ms, sizes, strict=True):
                sent_ms = (ready_ms if ready_ms > sent_ms else sent_ms) + images * output_ms  # noqa: FURB136
            end_ms = sent_ms + state.latency_ms + RETURN_HOPS * self.cluster.hop_ms
        computing_ms = work_ms(len(sizes), job.batch, each_call_ms, each_image_ms)
        share = PlacedShare(stage.name, node, computing_ms)
        return Offer((share,), finish_ms, end_ms, (received_ms,), tensors)

    def offer_shared(
        self, stage: Stage, nodes: Sequence[str], *, given: Sequence[str] | None = None
    ) -> Offer:
        """Return the expected times of a stage whose micro-batches are dealt to several nodes.

        Args:
            stage: a stage whose source was put.
            nodes: its replicas, each once. Those that get nothing are left out of the offer.
            given: node of each micro-batch, where that is settled.
        """
        replicas = {node: self._replica(stage, node, len(nodes)) for node in nodes}
        image_bytes = self.job.fragments[stage.name].input_bytes_per_image
        inputs = self._inputs(stage)
        dealt = deal(
            inputs,
            list(replicas.values()),
            image_bytes,
            given,
            hop_ms=self.cluster.hop_ms,
        )
        numbers = numbers_by_node([each.node for each in dealt])
        used = [node for node in nodes if node in numbers]
        if len(used) < len(nodes):
            return self.offer_shared(stage, used) if len(used) > 1 else self.offer(stage, used[0])
        shares = [self._share(stage, replicas[node], numbers[node]) for node in used]
        if len(shares) == 1:
            shares = [shares[0]._replace(micro_batches=None)]
        finish_ms = [each.finish_ms for each in dealt]
        end_ms = self._returned_ms(stage, dealt) if stage.name in self.job.sinks else max(finish_ms)
        received_ms = [max([dealt[number].received_ms for number in numbers[node]]) for node in used]
        tensors: Tensors = ((), ())
        if self.broker.byte_ms:
            tensors = _tensors(inputs, image_bytes)
        return Offer(tuple(shares), finish_ms, end_ms, tuple(received_ms), tensors)

    def _share(self, stage: Stage, replica: Replica, numbers: tuple[int, ...]) -> PlacedShare:
        images = sum([self.job.micro_batches[number] for number in numbers])
        computing_ms = work_ms(len(numbers), images, replica.call_ms, replica.image_ms)
        return PlacedShare(stage.name, replica.node, computing_ms, numbers)

    def _way(self, stage: Stage, fragment: Fragment, state: NodeState) -> tuple[float, float]:
        """Return the time of an image on its way to a node, and the time of a hop besides."""
        size, down = self._image_bytes(stage, fragment), state.link_megabytes_per_second
        if stage.source == INPUT:
            return transfer_ms(size, down), self.cluster.hop_ms + state.latency_ms
        source = self.cluster.nodes[self.offers[stage.source].node]
        relay = relay_ms(size * self.job.micro_batch, max(source.up, down))
        way_ms = self.cluster.hop_ms + source.latency_ms + state.latency_ms + relay
        return transfer_ms(size, min(source.up, down)), way_ms

    def _image_bytes(self, stage: Stage, fragment: Fragment) -> float:
        """Return the bytes of an image as it is sent to a stage, whose source stands on one node."""
        size: float = fragment.input_bytes_per_image
        if stage.source == INPUT:
            return size
        sender = self.offers[stage.source].node
        return size * self.cluster.output_ratio(sender, self.job.fragments[stage.source])

    def _held_up(
        self, ready_ms: Sequence[float], sizes: Sequence[float], way_ms: Sequence[float]
    ) -> list[float]:
        """Return when inputs set out, as if they crossed the node's link later by what the broker's takes.

        Args:
            ready_ms: when each is ready at its source.
            sizes: bytes of each.
            way_ms: time of each on the node's link.
        """
        crossed_ms = self.broker.crossed_ms(ready_ms, sizes)
        return [
            max(ready, crossed - way)
            for ready, crossed, way in zip(ready_ms, crossed_ms, way_ms, strict=True)
        ]

    def put(self, stage: Stage, offer: Offer) -> None:
        """Take an offer made for the stage."""
        self.offers[stage.name] = offer
        if offer.tensors[1]:
            self.broker.put(*offer.tensors)
        for share, received_ms in zip(offer.shares, offer.received_ms, strict=True):
            self._free_ms[share.node] = offer.until_ms(share)
            self._received_ms[share.node] = received_ms
            self._brought.setdefault(share.node, {})[stage.fragment] = self.job.fragments[stage.name]

    def copy(self) -> "StageSchedule":
        """Return an independent copy."""
        copy = replace(
            self,
            offers=dict(self.offers),
            _free_ms=dict(self._free_ms),
            _received_ms=dict(self._received_ms),
            _brought={node: dict(brought) for node, brought in self._brought.items()},
        )
        copy.broker = self.broker.copy()
        return copy

    def prediction(self) -> Estimate:
        """Return the estimate, once every stage was put on a node."""
        work_ms = {name: offer.work_ms for name, offer in self.offers.items()}
        return Estimate(self.response_ms, work_ms, self.broker.carried_bytes)

    @property
    def response_ms(self) -> float:
        """From `now_ms` until the gateway has the whole answer, once every stage was put on a node."""
        sinks, broker = self.job.sinks, self.broker
        end_ms = max([offer.end_ms for name, offer in self.offers.items() if name in sinks])
        if broker.byte_ms:  # tensors of a later branch may cross before those of an earlier one
            end_ms = max(end_ms, self.start_ms + broker.carried_bytes * broker.byte_ms)
        return end_ms - self.now_ms

    @property
    def shares(self) -> tuple[PlacedShare, ...]:
        """Everything that was put on nodes, in the order of the stages."""
        return tuple([share for offer in self.offers.values() for share in offer.shares])

    def _replica(self, stage: Stage, node: str, replicas: int) -> Replica:
        fragment, state = self.job.fragments[stage.name], self.cluster.nodes[node]
        free_ms = max(self.free_ms(node), self.cluster.fragment_ready_ms(node, fragment, self.now_ms))
        return Replica(
            node,
            free_ms,
            transfer_ms(1, state.link_megabytes_per_second),
            *self._speed(fragment, node, replicas),
            latency_ms=state.latency_ms,
            received_ms=self.received_ms(node),
        )

    def _inputs(self, stage: Stage) -> list[ReadyInput]:
        """Return the inputs of a stage, where they are made."""
        sizes = self.job.micro_batches
        if stage.source == INPUT:
            return self._carried(stage, [ReadyInput(self.start_ms, images) for images in sizes])
        source = self.offers[stage.source]
        sent = self.job.fragments[stage.source]
        links = {
            share.node: (*self._sending(share.node), self.cluster.output_ratio(share.node, sent))
            for share in source.shares
        }
        made = zip(source.finish_ms, sizes, source.nodes, strict=True)
        inputs = [ReadyInput(ready_ms, images, node, *links[node]) for ready_ms, images, node in made]
        return self._carried(stage, inputs)

    def _carried(self, stage: Stage, inputs: list[ReadyInput]) -> list[ReadyInput]:
        """Return inputs with the time at which the broker's link has carried them, where that is known."""
        if not self.broker.byte_ms:
            return inputs
        image_bytes = self.job.fragments[stage.name].input_bytes_per_image
        crossed_ms = self.broker.crossed_ms(*_tensors(inputs, image_bytes))
        return [each._replace(broker_ms=ms) for each, ms in zip(inputs, crossed_ms, strict=True)]

    def _sending(self, node: str) -> tuple[float, float]:
        """Return the time that a node needs to send a byte, and its latency."""
        state = self.cluster.nodes[node]
        return transfer_ms(1, state.up), state.latency_ms

    def _returned_ms(self, stage: Stage, dealt: Sequence[Dealt]) -> float:
        """Return when the gateway has all outputs: each node sends one after the other."""
        output_bytes = self.job.fragments[stage.name].output_bytes_per_image
        sent_ms: dict[str, float] = {}
        last_ms = 0.0
        for output, images in sorted(zip(dealt, self.job.micro_batches, strict=True), key=_finish_ms):
            byte_ms, latency_ms = self._sending(output.node)
            begin_ms = max(output.finish_ms, sent_ms.get(output.node, 0.0))
            sent_ms[output.node] = begin_ms + images * output_bytes * byte_ms
            last_ms = max(last_ms, sent_ms[output.node] + latency_ms)
        return last_ms + RETURN_HOPS * self.cluster.hop_ms

    def _speed(self, fragment: Fragment, node: str, replicas: int) -> tuple[float, float]:
        """Return the time of a call and the time of an image in it, where so many nodes share the calls."""
        calls = -(-len(self.job.micro_batches) // replicas)
        return self.cluster.speed(node, fragment, self.job.application.reference_score, calls)


def _tensors(inputs: Sequence[ReadyInput], image_bytes: float) -> Tensors:
    """Return inputs as the broker's link carries them."""
    sizes = [each.images * image_bytes * each.ratio for each in inputs]
    return [each.ready_ms for each in inputs], sizes


def _finish_ms(output: tuple[Dealt, int]) -> float:
    return output[0].finish_ms


def scheduled(
    cluster: ClusterView,
    job: Job,
    shares: Sequence[PlacedShare],
    now_ms: float,
    *,
    start_ms: float | None = None,
    due_ms: float = inf,
    idle: bool = False,
) -> StageSchedule:
    """Schedule a job whose stages are on given nodes.

    Args:
        cluster: what the nodes are busy with.
        job: what is to run.
        shares: every stage, on a node or shared by several.
        now_ms: the present moment.
        start_ms: when the gateway sends the inputs; default now.
        due_ms: the task's deadline.
        idle: as if nodes and links had nothing else to do.

    Raises:
        KeyError: a stage or a micro-batch has no node, or its node is not alive.
    """
    begin_ms = now_ms if start_ms is None else start_ms
    schedule = StageSchedule(cluster, job, now_ms, begin_ms, due_ms, idle=idle)
    placed: dict[str, list[PlacedShare]] = {stage.name: [] for stage in job.variant.stages}
    for share in shares:
        placed[share.stage].append(share)
    for stage in job.variant.stages:
        match placed[stage.name]:
            case []:
                raise KeyError(stage.name)
            case [PlacedShare(node=node, micro_batches=None)]:
                offer = schedule.offer(stage, node)
            case several:
                by_number = {number: share.node for share in several for number in share.micro_batches or ()}
                given = [by_number[number] for number in range(len(job.micro_batches))]
                offer = schedule.offer_shared(stage, [share.node for share in several], given=given)
        schedule.put(stage, offer)
    return schedule


def on_nodes(nodes: Mapping[str, str]) -> tuple[PlacedShare, ...]:
    """Return stages that each stand on one node, given by the stage's name. Their work is not known yet."""
    return tuple([PlacedShare(stage, node, 0.0) for stage, node in nodes.items()])


def predict(
    cluster: ClusterView,
    job: Job,
    nodes: Mapping[str, str],
    now_ms: float,
    *,
    start_ms: float | None = None,
    due_ms: float = inf,
    idle: bool = False,
) -> Estimate:
    """Estimate a job with each stage on one node: `scheduled`.

    Raises:
        KeyError: a stage has no node, or its node is not alive.
    """
    schedule = scheduled(cluster, job, on_nodes(nodes), now_ms, start_ms=start_ms, due_ms=due_ms, idle=idle)
    return schedule.prediction()
