"""The thin web shell: pages, `/api`, and a stream of changes."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from splitplace.bus.settings import Settings
from splitplace.commands.dashboard import decisions, on_request, views
from splitplace.commands.dashboard.exposition import Exposition
from splitplace.commands.dashboard.follow import TASK_VIEW
from splitplace.commands.dashboard.gallery import Gallery
from splitplace.commands.dashboard.guard import Access, Guard
from splitplace.commands.dashboard.history import History
from splitplace.commands.dashboard.minutes import Minute
from splitplace.commands.dashboard.openapi import document
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.shared.drawing import DrawingError
from splitplace.commands.shared.options import explain
from splitplace.commands.shared.task_record import TaskRecord, TaskRow, chosen, view
from splitplace.commands.submit.asking import ask
from splitplace.errors import SplitPlaceError
from splitplace.messages.base import Name
from splitplace.messages.limits import MAX_DEADLINE_MS, MAX_TASK_BYTES, MIN_DEADLINE_MS
from splitplace.messages.names import sensor_key, task_key
from splitplace.messages.task import TaskRequest

STATIC: Final = Path(__file__).parent / "static"
TASK_HEADER: Final = "splitplace-task"
"""Names the task of a picture that was tried: `/api/tasks/NAME`."""
_UPDATE_S = 1.0
_MOST_ROWS = 200
_MOST_HOURS = 31 * 24
_NOT_KEPT: Final = {"cache-control": "no-store"}

NOW: Final = TypeAdapter(views.NowView)
NODES: Final = TypeAdapter(list[views.NodeView])
ROWS: Final = TypeAdapter(list[TaskRow])
NETWORKS: Final = TypeAdapter(list[views.NetworkView])
SENSORS: Final = TypeAdapter(list[views.SensorView])
OVER_TIME: Final = TypeAdapter(decisions.DecisionsOverTime)
REPLAY: Final = TypeAdapter(on_request.ReplayView)
OTHER_DEADLINES: Final = TypeAdapter(tuple[on_request.OtherDeadline, ...])
WHAT_IF: Final = TypeAdapter(on_request.WhatIf)
DECISIONS: Final = TypeAdapter(list[views.DecisionView])
_NAME: Final = TypeAdapter(Name)


@dataclass(frozen=True, slots=True)
class Source:
    """What the pages are made from."""

    settings: Settings
    state: DashboardState
    history: History
    lock: asyncio.Lock
    """Held while the history is used."""
    software: str
    exposition: Exposition
    """What Prometheus scrapes."""
    gallery: Gallery | None = None
    """Pictures; None = they are not kept."""
    state_dir: Path | None = None
    """Where a calibration may lie; None = the usual folder."""


def web_app(source: Source, access: Access) -> ASGIApp:
    """Return the whole web application."""
    api = _Api(source, access)
    routes = [
        Route("/", _index),
        Route("/metrics", api.metrics),
        Route("/api/now", api.now),
        Route("/api/cluster", api.cluster),
        Route("/api/tasks", api.tasks),
        Route("/api/tasks/{task}", api.task),
        Route("/api/networks", api.networks),
        Route("/api/sensors", api.sensors),
        Route("/api/tasks/{task}/picture", api.picture),
        Route("/api/tasks/{task}/other-deadlines", api.other_deadlines),
        Route("/api/decisions/over-time", api.decisions_over_time),
        Route("/api/decisions/replay", api.replay),
        Route("/api/what-if", api.what_if),
        Route("/api/decisions", api.decisions),
        Route("/api/history", api.history),
        Route("/api/events", api.events),
        Route("/api/openapi.json", api.openapi),
        Route("/api/try", api.try_task, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Guard(Starlette(routes=routes), access)


async def _index(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


def _json(adapter: TypeAdapter[Any], value: object) -> Response:
    return Response(adapter.dump_json(value), media_type="application/json", headers=_NOT_KEPT)


def _error(text: str, code: int) -> Response:
    return JSONResponse({"error": text}, code)


class _Api:
    """The handlers of `/api`."""

    def __init__(self, source: Source, access: Access) -> None:
        self._source = source
        self._state = source.state
        self._access = access
        self._drawing, self._computing = asyncio.Lock(), asyncio.Lock()

    async def metrics(self, request: Request) -> Response:
        """The figures for Prometheus."""
        text, content_type = self._source.exposition.text(request.headers.get("accept", ""))
        return Response(text, headers={**_NOT_KEPT, "content-type": content_type})

    async def now(self, _: Request) -> Response:
        """The page Now."""
        return _json(NOW, views.now_view(self._state, time.time(), self._source.software))

    async def cluster(self, _: Request) -> Response:
        """The page Cluster."""
        return _json(NODES, views.node_views(self._state, time.time()))

    async def tasks(self, request: Request) -> Response:
        """The last tasks that fit a filter."""
        outcome, sensor, application, order = (
            request.query_params.get(name, "") for name in ("outcome", "sensor", "application", "order")
        )
        rows = chosen(views.task_rows(self._state), outcome, sensor, application)
        if order == "slowest":
            rows.sort(key=lambda each: -(each.response_ms or 0.0))
        return _json(ROWS, rows[:_MOST_ROWS])

    async def task(self, request: Request) -> Response:
        """One task, from the state or the history."""
        key = request.path_params["task"]
        record = self._record(key)
        if record is not None:
            seen = view(record, self._state.applications.get(record.application))
            has = self._source.gallery is not None and self._source.gallery.has(record.task)
            return _json(TASK_VIEW, replace(seen, picture=has))
        async with self._source.lock:
            found = await asyncio.to_thread(self._source.history.task, key)
        if found is None:
            return _error("no such task in the last day", 404)
        return Response(found, media_type="application/json", headers=_NOT_KEPT)

    async def networks(self, _: Request) -> Response:
        """The page Networks."""
        return _json(NETWORKS, views.network_views(self._state))

    async def sensors(self, _: Request) -> Response:
        """The page Sensors."""
        gallery = self._source.gallery
        picture_of = gallery.last_of if gallery is not None else lambda _: ""
        return _json(SENSORS, views.sensor_views(self._state, time.time(), picture_of))

    async def decisions(self, _: Request) -> Response:
        """The page Decisions."""
        return _json(DECISIONS, views.decision_views(self._state))

    def _record(self, key: str) -> TaskRecord | None:
        """Return a task by its key, or the last one that a sensor sent under an id (`SENSOR.ID`)."""
        tasks = self._state.tasks
        named = (each for name, each in reversed(tasks.items()) if sensor_key(name) == key)
        return tasks.get(key) or next(named, None)

    async def picture(self, request: Request) -> Response:
        """The picture of a task, with what was found in it."""
        gallery = self._source.gallery
        if gallery is None:
            return _error("pictures are not kept (splitplace dashboard --pictures)", 404)
        try:
            async with self._drawing:
                content = await asyncio.to_thread(gallery.drawn, request.path_params["task"])
        except DrawingError as error:
            return _error(str(error), 415)
        if content is None:
            return _error("there is no picture of this task (any more)", 404)
        return Response(content, media_type="image/jpeg", headers=_NOT_KEPT)

    async def other_deadlines(self, request: Request) -> Response:
        """How a task would have been split with other deadlines."""
        from splitplace.commands.dashboard.other_deadlines import other_deadlines  # noqa: PLC0415 - 3 MB

        record = self._record(request.path_params["task"])
        if record is None:
            return _error("no such task among the last ones", 404)
        known = self._state.applications.get(record.application)
        return _json(OTHER_DEADLINES, other_deadlines(record, known))

    async def decisions_over_time(self, _: Request) -> Response:
        """Variants over time, predictions beside outcomes, promises kept."""
        return _json(OVER_TIME, decisions.over_time(self._state.tasks.values()))

    async def replay(self, request: Request) -> Response:
        """What another policy would have earned on the last tasks."""
        from splitplace.commands.dashboard import regret  # noqa: PLC0415 - 3 MB

        name = regret.known_policy(request.query_params.get("policy", ""))
        if name is None:
            return _error(f"no split policy of that name, only {', '.join(regret.POLICIES)}", 400)
        events = regret.events_of(self._state.tasks.values())
        async with self._computing:
            return _json(REPLAY, await asyncio.to_thread(regret.replayed, events, name))

    async def what_if(self, request: Request) -> Response:
        """The last hour's tasks with other nodes, another policy or deadline, simulated."""
        from splitplace.commands.dashboard import what_if  # noqa: PLC0415 - the simulator takes 8 MB

        asked = request.query_params
        try:
            deadline_ms = float(asked["deadline_ms"]) if asked.get("deadline_ms") else None
        except ValueError:
            return _error("deadline_ms must be a number", 400)
        if deadline_ms is not None and not MIN_DEADLINE_MS <= deadline_ms <= MAX_DEADLINE_MS:
            return _error(f"a deadline has {MIN_DEADLINE_MS:g} to {MAX_DEADLINE_MS:g} ms", 400)
        try:
            wanted = on_request.Wanted(
                asked.get("remove", ""), asked.get("add", ""), asked.get("policy", ""), deadline_ms
            )
            asking = what_if.questions(self._state, wanted, time.time(), self._source.state_dir)
        except (SplitPlaceError, ValueError) as error:
            return _error(f"no answer: {error}", 409)
        async with self._computing:
            return _json(WHAT_IF, await asyncio.to_thread(what_if.answer, *asking))

    async def history(self, request: Request) -> Response:
        """Outcomes by the minute."""
        try:
            hours = min(max(float(request.query_params.get("hours", "24")), 0.0), _MOST_HOURS)
        except ValueError:
            return _error("hours must be a number", 400)
        async with self._source.lock:
            minutes = await asyncio.to_thread(self._source.history.minutes, time.time() - hours * 3600)
        return JSONResponse([_counts(each) for each in minutes])

    async def events(self, request: Request) -> Response:
        """A stream of what changed."""
        return StreamingResponse(self._updates(request), media_type="text/event-stream", headers=_NOT_KEPT)

    async def _updates(self, request: Request) -> AsyncIterator[bytes]:
        """Yield what changed, once a second, while somebody looks."""
        state, after = self._state, 0
        while not await request.is_disconnected():
            now_s = time.time()
            rows = views.task_rows(state, after)[:_MOST_ROWS] if state.changes > after else []
            after = state.changes
            parts = (
                NOW.dump_json(views.now_view(state, now_s, self._source.software)),
                NODES.dump_json(views.node_views(state, now_s)),
                ROWS.dump_json(rows),
            )
            yield b'data: {"now":%b,"cluster":%b,"tasks":%b}\n\n' % parts
            await asyncio.sleep(_UPDATE_S)

    async def openapi(self, _: Request) -> Response:
        """The description of `/api`."""
        return JSONResponse(document(self._source.software))

    async def try_task(self, request: Request) -> Response:
        """Send a picture as a test task and wait for its answer."""
        if not self._access.may_try:
            return _error("test tasks are switched off (--no-try)", 403)
        try:
            size = int(request.headers.get("content-length", MAX_TASK_BYTES + 1))
            if size > MAX_TASK_BYTES:
                return _error(f"a picture may have {MAX_TASK_BYTES} bytes", 413)
            application = _NAME.validate_python(request.query_params.get("application", ""))
            deadline_ms = float(request.query_params.get("deadline_ms", "1000"))
            task = TaskRequest(images=(await request.body(),), deadline_ms=deadline_ms)
        except ValidationError as error:
            return _error(explain(error), 400)
        except ValueError as error:
            return _error(str(error), 400)
        try:
            answer = await ask(self._source.settings, application, task)
        except SplitPlaceError as error:
            return _error(str(error), 502)
        key = task_key(answer.client, answer.task, "").rstrip(".")
        return Response(
            answer.model_dump_json(), media_type="application/json", headers={**_NOT_KEPT, TASK_HEADER: key}
        )


def _counts(minute: Minute) -> Mapping[str, int]:
    return {
        "minute": minute.minute,
        "finished": minute.finished,
        "on_time": minute.on_time,
        "late": minute.late,
    }
