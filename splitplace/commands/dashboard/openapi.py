"""The OpenAPI document of `/api`, made from the types that it returns."""

from typing import Any, Final

from pydantic import TypeAdapter

from splitplace.commands.dashboard import decisions, on_request, views
from splitplace.commands.shared.task_record import TaskRow, TaskView
from splitplace.messages.task import Answer

_REF = "#/components/schemas/{model}"

_GETS: Final[tuple[tuple[str, str, Any, tuple[str, ...]], ...]] = (
    ("/api/now", "The system at a glance: one light, why, and what to do.", views.NowView, ()),
    ("/api/cluster", "All nodes; those that are gone for up to ten minutes.", list[views.NodeView], ()),
    (
        "/api/tasks",
        "The last tasks, newest first; order=slowest puts the slowest first.",
        list[TaskRow],
        ("outcome", "sensor", "application", "order"),
    ),
    ("/api/tasks/{task}", "One task of the last day, with alternatives and attempts.", TaskView, ()),
    ("/api/networks", "All applications, with their variants.", list[views.NetworkView], ()),
    ("/api/sensors", "Sensors, the most recent first.", list[views.SensorView], ()),
    ("/api/decisions", "Outcomes of each variant.", list[views.DecisionView], ()),
    (
        "/api/tasks/{task}/other-deadlines",
        "How the task would have been split with other deadlines.",
        tuple[on_request.OtherDeadline, ...],
        (),
    ),
    (
        "/api/decisions/over-time",
        "Variants over time, predictions beside outcomes, promises kept.",
        decisions.DecisionsOverTime,
        (),
    ),
    (
        "/api/decisions/replay",
        "What another policy would have earned on the last tasks.",
        on_request.ReplayView,
        ("policy",),
    ),
    (
        "/api/what-if",
        "The last hour's tasks with other nodes, another policy or deadline, by calibrated simulation.",
        on_request.WhatIf,
        ("remove", "add", "policy", "deadline_ms"),
    ),
    ("/api/history", "Outcomes by the minute, for up to a month.", list[dict[str, int]], ("hours",)),
)


def document(software: str) -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, summary, kind, query in _GETS:
        parameters: list[dict[str, Any]] = [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in query
        ]
        if "{task}" in path:
            parameters.append({"name": "task", "in": "path", "required": True, "schema": {"type": "string"}})
        paths[path] = {
            "get": {"summary": summary, "parameters": parameters, "responses": _answer(kind, schemas)}
        }
    paths["/api/tasks/{task}/picture"] = {
        "get": {
            "summary": "The picture of a task with what was found in it, where pictures are kept.",
            "parameters": [{"name": "task", "in": "path", "required": True, "schema": {"type": "string"}}],
            "responses": {"200": {"description": "A picture", "content": {"image/jpeg": {}}}},
        }
    }
    paths["/api/events"] = {
        "get": {
            "summary": "Server-sent events, one a second: now, cluster, and the tasks that changed.",
            "responses": {"200": {"description": "JSON objects", "content": {"text/event-stream": {}}}},
        }
    }
    paths["/api/try"] = {
        "post": {
            "summary": "Send a picture as a test task and wait for its answer.",
            "parameters": [
                {"name": "application", "in": "query", "required": True, "schema": {"type": "string"}},
                {"name": "deadline_ms", "in": "query", "schema": {"type": "number"}},
            ],
            "requestBody": {"required": True, "content": {"image/*": {}}},
            "responses": _answer(Answer, schemas),
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "SplitPlace dashboard", "version": software},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _answer(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a type
    schema = TypeAdapter(kind).json_schema(ref_template=_REF, mode="serialization")
    schemas.update(schema.pop("$defs", {}))
    return {"200": {"description": "As JSON", "content": {"application/json": {"schema": schema}}}}
