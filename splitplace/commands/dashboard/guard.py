"""Who may come in, and what every answer of the dashboard tells the browser to allow."""

import hmac
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from splitplace.bus.hints import is_loopback

COOKIE: Final = "splitplace-token"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in."""

    token: str | None = None
    """None lets in whoever reaches this address."""
    may_try: bool = True
    """Whether test tasks may be sent."""


class Guard:
    """Middleware: refuse strangers and foreign pages, and send the security headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if _is_foreign(request):
            return JSONResponse({"error": "the request comes from another site"}, 403)
        token = self._access.token
        if token is None:
            # A page of another site may resolve its own name to this address (DNS rebinding).
            if is_loopback(request.url.hostname or ""):
                return None
            return JSONResponse({"error": "ask for 127.0.0.1 or localhost, or set a token"}, 403)
        given = request.query_params.get("token") or request.cookies.get(COOKIE, "")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not any(hmac.compare_digest(each.encode(), token.encode()) for each in (given, bearer)):
            return JSONResponse(
                {"error": "a token is needed: open the address that splitplace dashboard has printed"}, 401
            )
        if "token" in request.query_params and request.url.path == "/":
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86_400)
            return answer
        return None


def _is_foreign(request: Request) -> bool:
    """Whether a page of another site asks: it could not read the answer, but some answers take seconds."""
    if request.headers.get("sec-fetch-site") == "cross-site" and request.url.path.startswith("/api/"):
        return True
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host')}"
    return request.method != "GET" and origin not in {None, own}
