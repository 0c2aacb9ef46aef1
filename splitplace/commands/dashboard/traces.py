"""One OpenTelemetry trace for each task that ended: intake, decision, stages, hops and merge.

Spans are made from the messages of a task when it has ended, so tracing costs its way nothing. Nodes share no
clock: stages are put where the order of the variant allows them to begin, as in the timeline of the page.
"""

from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from splitplace.commands.shared.task_record import TaskRecord, timeline
from splitplace.messages.application import Application
from splitplace.messages.task import TaskFinished
from splitplace.messages.trace_context import TRACEPARENT

_NS: Final = 1_000_000
"""Nanoseconds in a millisecond."""


class Traces:
    """Makes a trace of each task and hands it to an exporter."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Hand spans to a processor."""
        self._provider = TracerProvider(resource=Resource.create({"service.name": "splitplace"}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("splitplace")

    def add(self, record: TaskRecord, application: Application | None, now_s: float) -> None:
        """Make the trace of a task that has just ended."""
        end = record.finished
        if end is None:
            return
        start_ns = round(1000 * now_s * _NS) - round(end.response_ms * _NS)

        def at(ms: float) -> int:
            return start_ns + round(ms * _NS)

        root = self._tracer.start_span(
            f"task {record.application}",
            context=_above(end),
            start_time=start_ns,
            attributes=_of_task(record, end),
        )
        if end.status != "answered":
            root.set_status(Status(StatusCode.ERROR, end.reason))
        inside = set_span_in_context(root)

        def span(name: str, begin_ms: float, end_ms: float, **attributes: str | float) -> None:
            made = self._tracer.start_span(name, inside, start_time=at(begin_ms), attributes=attributes)
            made.end(at(max(begin_ms, end_ms)))

        decided = record.last.decided
        intake_ms = max(end.deadline_ms - record.accepted.slack_ms, 0.0) if record.accepted else 0.0
        span("intake", 0.0, intake_ms)
        done_ms = intake_ms
        if decided is not None:
            done_ms = max(intake_ms, end.deadline_ms - decided.slack_ms)
            span("decision", intake_ms, done_ms, policy=decided.policy, reason=decided.reason)
        for bar in timeline(record, application):
            if bar.start_ms > done_ms:
                span("hop", done_ms, bar.start_ms, to=bar.node)
            done_ms = bar.start_ms + bar.wait_ms + bar.compute_ms
            span(f"stage {bar.stage}", bar.start_ms, done_ms, node=bar.node, wait_ms=bar.wait_ms)
        if end.status == "answered":
            span("hops and merge", done_ms, end.response_ms, moved_bytes=end.moved_bytes)
        root.end(at(end.response_ms))

    def close(self) -> None:
        """Hand over what is left."""
        self._provider.shutdown()


def to_collector(url: str) -> Traces:
    """Return traces that go to a collector by OTLP over HTTP, such as `http://127.0.0.1:4318`."""
    return Traces(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces")))


def _above(end: TaskFinished) -> Context:
    """Return the sensor's span; nothing where it sent none, so that the task begins a trace."""
    carrier = {TRACEPARENT: end.traceparent} if end.traceparent is not None else {}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def _of_task(record: TaskRecord, end: TaskFinished) -> dict[str, str | float | bool]:
    return {
        "splitplace.task": record.task,
        "splitplace.sensor": record.sensor,
        "splitplace.variant": end.variant or "none",
        "splitplace.outcome": record.outcome,
        "splitplace.deadline_ms": end.deadline_ms,
        "splitplace.predicted_ms": end.predicted_ms if end.predicted_ms is not None else -1.0,
        "splitplace.attempts": max(record.attempts, default=0),
        "splitplace.on_time": end.on_time,
    }
