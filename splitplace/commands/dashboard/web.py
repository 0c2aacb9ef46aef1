"""The thin web shell: pages, `/api`, and a stream of changes."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
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
from splitplace.commands.dashboard import views
from splitplace.commands.dashboard.follow import TASK_VIEW
from splitplace.commands.dashboard.guard import Access, Guard
from splitplace.commands.dashboard.history import History
from splitplace.commands.dashboard.minutes import Minute
from splitplace.commands.dashboard.openapi import document
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.dashboard.tasks import TaskRow, chosen, view
from splitplace.commands.shared.options import explain
from splitplace.commands.submit import ask
from splitplace.errors import SplitPlaceError
from splitplace.messages.base import Name
from splitplace.messages.limits import MAX_TASK_BYTES
from splitplace.messages.task import TaskRequest

STATIC: Final = Path(__file__).parent / "static"
_UPDATE_S = 1.0
_MOST_ROWS = 200
_MOST_HOURS = 31 * 24
_NOT_KEPT: Final = {"cache-control": "no-store"}

NOW: Final = TypeAdapter(views.NowView)
NODES: Final = TypeAdapter(list[views.NodeView])
ROWS: Final = TypeAdapter(list[TaskRow])
NETWORKS: Final = TypeAdapter(list[views.NetworkView])
SENSORS: Final = TypeAdapter(list[views.SensorView])
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


def web_app(source: Source, access: Access) -> ASGIApp:
    """Return the whole web application."""
    api = _Api(source, access)
    routes = [
        Route("/", _index),
        Route("/api/now", api.now),
        Route("/api/cluster", api.cluster),
        Route("/api/tasks", api.tasks),
        Route("/api/tasks/{task}", api.task),
        Route("/api/networks", api.networks),
        Route("/api/sensors", api.sensors),
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
        record = self._state.tasks.get(key)
        if record is not None:
            return _json(TASK_VIEW, view(record, self._state.applications.get(record.application)))
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
        return _json(SENSORS, views.sensor_views(self._state, time.time()))

    async def decisions(self, _: Request) -> Response:
        """The page Decisions."""
        return _json(DECISIONS, views.decision_views(self._state))

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
        return Response(answer.model_dump_json(), media_type="application/json", headers=_NOT_KEPT)


def _counts(minute: Minute) -> Mapping[str, int]:
    return {
        "minute": minute.minute,
        "finished": minute.finished,
        "on_time": minute.on_time,
        "late": minute.late,
    }
