"""One trace a task, read back from the memory of the SDK."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from splitplace.commands.dashboard.traces import Traces, to_collector
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.messages.task import StageReport
from tests.support.message_examples import application
from tests.support.messages import accepted, decided, finished

NOW_S = 1_800_000_000.0


def test_a_task_is_one_trace_with_a_span_for_each_part_of_its_way() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(exporter))
    record = TaskRecord("c.1", "digits", NOW_S)
    stages = tuple(
        StageReport(stage=stage, node=node, queue_ms=5, compute_ms=20)
        for stage, node in (("front", "a"), ("back", "b"))
    )
    record.take(accepted("c.1", slack_ms=990.0))
    record.take(decided("c.1", variant="layer", slack_ms=980.0))
    end = finished("c.1", variant="layer", response_ms=100.0, after_decision_ms=80.0, stages=stages)
    record.take(end)
    traces.add(record, application(), NOW_S)
    spans = exporter.get_finished_spans()
    (root,) = [span for span in spans if span.parent is None]
    assert root.end_time == round(NOW_S * 1e9)
    assert root.end_time - (root.start_time or 0) == 100_000_000
    names = [span.name for span in spans if span is not root]
    assert names == ["intake", "decision", "stage front", "stage back", "hops and merge"]
    assert {span.context.trace_id for span in spans} == {root.context.trace_id}
    assert all(span.parent == root.context for span in spans if span is not root)
    assert all((root.start_time or 0) <= (span.start_time or 0) for span in spans)
    assert all((span.end_time or 0) <= (root.end_time or 0) for span in spans)
    assert root.status.status_code is StatusCode.UNSET


def test_a_task_of_a_sensor_that_traces_is_a_child_of_its_span() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(exporter))
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    for name, flags in (("c.1", "01"), ("c.2", "00")):
        record = TaskRecord(name, "digits", NOW_S)
        record.take(finished(name, traceparent=f"00-{trace}-{span}-{flags}"))
        traces.add(record, None, NOW_S)
    spans = exporter.get_finished_spans()
    (task,) = [each for each in spans if each.name == "task digits"]  # the sensor does not sample the second
    assert task.parent is not None
    assert (task.parent.trace_id, task.parent.span_id) == (int(trace, 16), int(span, 16))
    assert all(each.context.trace_id == int(trace, 16) for each in spans)


def test_a_task_that_failed_is_marked_as_an_error_and_the_next_has_a_trace_of_its_own() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(exporter))
    for name in ("c.1", "c.2"):
        record = TaskRecord(name, "digits", NOW_S)
        record.take(finished(name, status="failed", on_time=False, reason="no node is left"))
        traces.add(record, None, NOW_S)
    traces.close()
    roots = [span for span in exporter.get_finished_spans() if span.parent is None]
    assert len({span.context.trace_id for span in roots}) == 2
    assert {(span.status.status_code, span.status.description) for span in roots} == {
        (StatusCode.ERROR, "no node is left")
    }


def test_a_collector_gets_traces_by_http() -> None:
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traces = to_collector(f"http://127.0.0.1:{server.server_port}/")
        record = TaskRecord("c.1", "digits", NOW_S)
        record.take(finished("c.1"))
        traces.add(record, None, NOW_S)
        traces.close()
        server.shutdown()
    ((path, content),) = got
    assert path == "/v1/traces"
    sent = ExportTraceServiceRequest.FromString(content)
    names = [span.name for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans]
    assert names == ["intake", "hops and merge", "task digits"]
