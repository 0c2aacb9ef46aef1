"""The outputs of one attempt at one task, until all are there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Self

from splitplace.messages.answer_kinds import Classification
from splitplace.messages.application import Application, Stage, Variant
from splitplace.messages.findings import Finding
from splitplace.messages.frames import FrameError, TensorHeader
from splitplace.messages.groupings import GroupingError, as_placed_again, path_to, placed_variant
from splitplace.messages.limits import MAX_BATCH
from splitplace.messages.second_run import SecondPart, SecondRun
from splitplace.messages.task import ClassScore, StageReport, TaskPlaced, TaskResult
from splitplace.services.result_aggregator.keeping import Kept, fits, merge

_OVERHEAD_BYTES = 512
"""Python objects around the arrays of one output."""
_MOST_MS = 1e12
_MOST_BYTES = 2**53


@dataclass(frozen=True, slots=True)
class SecondPath:
    """The stages and nodes of a second run."""

    run: SecondRun
    parts: Sequence[tuple[SecondPart, Variant]]
    """Each with its stages."""

    @classmethod
    def of(cls, second: SecondRun, application: Application) -> Self | None:
        """Return the path of a second run; None if it does not fit the application."""
        try:
            return cls(
                second, [(part, as_placed_again(application, part.placed).variant) for part in second.parts]
            )
        except GroupingError:
            return None

    def leads_here(self, header: TensorHeader) -> bool:
        """Whether an output came along this path."""
        came = [(report.stage, report.node) for report in header.trace]
        return any(
            came
            == [(stage, part.node_of(stage, header.micro_batch)) for stage in path_to(variant, header.stage)]
            for part, variant in self.parts
            if any(header.stage == sink.name for sink in variant.sinks)
        )


@dataclass(slots=True)
class TaskOutputs:
    """An attempt at a task whose outputs are coming in."""

    first: TensorHeader
    """Header of the first output; the others must agree with it."""
    variant: Variant
    placed: TaskPlaced
    paths: Sequence[Mapping[str, str]]
    """The node of each stage, for each micro-batch."""
    ends_ms: float
    application: Application
    """As it was when the first output came."""
    sinks: dict[str, Stage]
    missing: int
    """Number of outputs that have not come yet."""
    outputs: dict[int, dict[str, Kept]] = field(default_factory=dict)
    """By micro-batch and stage."""
    rows: dict[int, int] = field(default_factory=dict)
    """Inputs in each micro-batch."""
    reports: dict[tuple[str, str], dict[int, StageReport]] = field(default_factory=dict)
    """Reports of each stage on each node, by micro-batch."""
    moved_bytes: int = 0
    held_bytes: int = 0
    second: SecondPath | None = None
    """Where what was overdue runs a second time."""

    @classmethod
    def begin(cls, header: TensorHeader, application: Application, placed: TaskPlaced, now_ms: float) -> Self:
        """Return an attempt without outputs, for its first output.

        Raises:
            FrameError: the application has no such variant, or another one was placed.
        """
        if (header.application, header.variant) != (placed.application, placed.variant):
            raise FrameError(f"{header.task}: {placed.application} {placed.variant} was placed")
        try:
            variant = placed_variant(application, placed)
        except GroupingError as error:
            raise FrameError(f"{header.task}: {error}") from None
        sinks = {sink.name: sink for sink in variant.sinks}
        missing = header.micro_batches * len(sinks)
        return cls(
            header,
            variant,
            placed,
            placed.paths(),
            now_ms + header.expires_ms,
            application,
            sinks,
            missing,
        )

    def has(self, header: TensorHeader) -> bool:
        """Whether this output has come before."""
        return self.sink_of(header) in self.outputs.get(header.micro_batch, {})

    def sink_of(self, header: TensorHeader) -> str:
        """Return the last stage whose output this is; those of a second run may have other names."""
        if header.second_run and self.second is not None and len(self.sinks) == 1:
            return next(iter(self.sinks))
        return header.stage

    def check(self, header: TensorHeader, output: Kept) -> None:
        """Check that an output fits the variant, its placement, and the outputs before it.

        Raises:
            FrameError: it contradicts them.
        """
        first, where = self.first, f"{header.task}, stage {header.stage}, micro-batch {header.micro_batch}"
        if (header.application, header.variant, header.micro_batches) != (
            first.application,
            first.variant,
            first.micro_batches,
        ):
            raise FrameError(f"{where}: contradicts the outputs before it")
        sink = self.sinks.get(self.sink_of(header))
        if sink is None or header.micro_batch >= header.micro_batches:
            raise FrameError(f"{where}: {header.variant} gives no such output")
        if not fits(output, self.application):
            raise FrameError(f"{where}: another kind of output than {self.application.answers.kind}")
        if output.columns != len(sink.classes):
            raise FrameError(f"{where}: {output.columns} columns for {len(sink.classes)} classes")
        batch = sum(self.rows.values()) + (0 if header.micro_batch in self.rows else output.rows)
        if self.rows.get(header.micro_batch, output.rows) != output.rows or batch > MAX_BATCH:
            raise FrameError(f"{where}: {output.rows} rows do not fit the other outputs")
        if header.second_run:
            if self.second is None or not self.second.leads_here(header):
                raise FrameError(f"{where}: no second run was placed so")
            return
        came = [(report.stage, report.node) for report in header.trace]
        nodes = self.paths[header.micro_batch] if header.micro_batch < len(self.paths) else {}
        if came != [(stage, nodes.get(stage)) for stage in path_to(self.variant, sink.name)]:
            raise FrameError(f"{where}: it came through {came}, which was not placed so")

    def take(self, header: TensorHeader, output: Kept) -> None:
        """Keep an output that was checked."""
        self.outputs.setdefault(header.micro_batch, {})[self.sink_of(header)] = output
        self.rows[header.micro_batch] = output.rows
        self.missing -= 1
        self.held_bytes += output.nbytes + _OVERHEAD_BYTES
        self.moved_bytes += header.moved_bytes + header.body_bytes
        for report in header.trace:  # branches share the stages before they part
            here = self.reports.setdefault((report.stage, report.node), {})
            here.setdefault(header.micro_batch, report)

    def partial(self) -> TaskResult | None:
        """Return the result over the branches that have come; None while some input has no output."""
        if len(self.outputs) < self.first.micro_batches:
            return None
        return self.result()

    def result(self) -> TaskResult:
        """Merge the outputs that have come, at least one of each micro-batch."""
        merged: list[ClassScore | Finding | None] = []
        classes = sum(len(sink.classes) for sink in self.sinks.values())
        covered_inputs = 0.0
        came = finite = 0
        batch = sum(self.rows.values())
        for number, outputs in sorted(self.outputs.items()):
            parts = [(sink.classes, outputs[name]) for name, sink in self.sinks.items() if name in outputs]
            coverage = sum(len(columns) for columns, _ in parts) / classes if classes else 1.0
            covered_inputs += coverage * self.rows[number]
            came += sum(max(1, len(columns)) * output.rows for columns, output in parts)
            finite += sum(max(1, len(columns)) * output.finite_rows for columns, output in parts)
            merged += merge(parts, self.application, coverage, batch)
        is_classified = isinstance(self.application.answers, Classification)
        return TaskResult.model_validate(
            {
                "scores" if is_classified else "findings": tuple(merged),
                "task": self.first.task,
                "attempt": self.first.attempt,
                "application": self.first.application,
                "variant": self.first.variant,
                "stages": tuple(self._reports()),
                "micro_batches": self.first.micro_batches,
                "moved_bytes": min(_MOST_BYTES, self.moved_bytes),
                "coverage": min(1.0, covered_inputs / batch) if self.missing else 1.0,
                "finite": finite / came,
            }
        )

    def _reports(self) -> Iterator[StageReport]:
        again = self.second.run.stages if self.second is not None else ()
        known = dict.fromkeys((share.stage, share.node) for share in (*self.placed.stages, *again))
        for stage, node in known:
            reports = self.reports.get((stage, node), {}).values()
            if reports:
                yield StageReport(
                    stage=stage,
                    node=node,
                    queue_ms=min(_MOST_MS, fsum(report.queue_ms for report in reports)),
                    compute_ms=min(_MOST_MS, fsum(report.compute_ms for report in reports)),
                )
