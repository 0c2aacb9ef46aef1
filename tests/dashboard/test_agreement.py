"""What the document of `/api` and the pages name is what the server knows."""

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route

from splitplace.bus.settings import Settings
from splitplace.commands.dashboard import regret
from splitplace.commands.dashboard.exposition import Exposition
from splitplace.commands.dashboard.guard import Access, Guard
from splitplace.commands.dashboard.history import open_history
from splitplace.commands.dashboard.openapi import document
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.dashboard.web import STATIC, Source, web_app
from splitplace.planning.kinds import known_kinds
from splitplace.policies.pairs import parse_policy


def test_the_document_of_api_names_every_route(tmp_path: Path) -> None:
    with contextlib.closing(open_history(tmp_path / "history.sqlite3")) as history:
        state, lock = DashboardState(started_s=0.0), asyncio.Lock()
        source = Source(Settings(), state, history, lock, "1.2.3", Exposition(time.time))
        app = web_app(source, Access())
    assert isinstance(app, Guard)
    assert isinstance(app._app, Starlette)
    routes = {route.path for route in app._app.routes if isinstance(route, Route)}
    assert set(document("1.2.3")["paths"]) == routes - {"/", "/metrics", "/api/openapi.json"}


def test_the_pages_offer_policies_and_kinds_of_nodes_that_are_known() -> None:
    texts = (STATIC / "texts.js").read_text("utf-8")
    lists = re.findall(r"(kinds|policies): (\[[^]]*\])", texts)
    assert [name for name, _ in lists] == ["policies", "kinds", "policies"]
    of_replay, kinds, pairs = (json.loads(names) for _, names in lists)
    assert set(of_replay) <= set(regret.POLICIES)
    assert kinds == list(known_kinds())
    for pair in pairs:
        parse_policy(pair)
