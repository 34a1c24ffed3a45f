# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Let nobody in but the one who started the server: one-time token, cookie, same origin, bounded bodies, strict CSP."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LARGEST_BODY", "Guard"]

LARGEST_BODY = 64_000_000
"""Bytes of a request; outlines of a million corners have a third of it."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TOO_LARGE = f"more than {LARGEST_BODY // 1_000_000} MB: simplify the outlines"
_ENTER = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><title>glas_wsol</title><a href="/">Open</a>'


class Guard:
    """An ASGI application in front of another.

    Args:
        app: asked where a request may pass.
        hosts: ``host:port`` of this server, as browsers say it.
        token: of the address that is printed; it opens one browser, once.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str) -> None:
        self.app, self.hosts, self._token = app, frozenset(hosts), token
        self._session, self._cookie = secrets.token_urlsafe(32), f"glas_wsol_{min(hosts).rpartition(':')[2]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refusal(Request(scope))
        if refused is not None:
            await refused(scope, receive, guarded)
            return
        left = LARGEST_BODY

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, _TOO_LARGE)  # which the application answers with
            return message

        await self.app(scope, bounded, guarded)

    def _refusal(self, request: Request) -> Response | None:
        """What is answered in the place of the application; None where the request may pass."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
        host = request.headers.get("host", "")
        if host not in self.hosts:
            return _said(403, "this server has another name: open the address that the command printed")
        if origin not in (None, f"http://{host}") or (origin is None and request.method not in ("GET", "HEAD")):
            return _said(403, "another page asked for this")
        token = request.query_params.get("token")
        if request.url.path == "/" and token is not None:  # followed from a terminal or a mail: any site may lead here
            return self._enter(request, token)
        if site not in ("same-origin", "none"):
            return _said(403, "another page asked for this")
        if not self._knows(request):
            return _said(403, "not opened by the address that the command printed: stop the command and start it again")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return _said(413, _TOO_LARGE)
        return None

    def _knows(self, request: HTTPConnection) -> bool:
        return secrets.compare_digest(request.cookies.get(self._cookie, "").encode(), self._session.encode())

    def _enter(self, request: Request, token: str) -> Response:
        if not self._knows(request):
            if not self._token or not secrets.compare_digest(token.encode(), self._token.encode()):
                return _said(403, "this address was used already, or is not that of the command: start it again")
            self._token = ""
        # a page, not a redirect: a browser sends no strict cookie on one that another site led to
        found = HTMLResponse(_ENTER, headers={"Cache-Control": "no-store"})
        found.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return found


def _said(status: int, what: str) -> Response:
    return JSONResponse({"error": what}, status, {"Cache-Control": "no-store"})
