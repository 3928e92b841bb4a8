"""The application of a hive: its routes behind the gate, and their description at `/docs`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from engine.core.errors import H2QError
from engine.hive.lora_file import BadAdapter
from engine.hive.protocol import SERVER_NAME
from engine.hive.server import hivemind_api, rounds_api, uploads_api
from engine.hive.server.access import HiveAccess, RateLimit
from engine.hive.server.described import components, docs_page
from engine.hive.server.hive import Hive
from engine.hive.server.replies import failure, not_admitted, refusal
from engine.hive.tokens import TokenBook
from engine.http.gate import AccessRules, Gate
from engine.http.refused import INTERNAL, RequestRefused

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
_ABOUT = "Adapters of several people, joined into one. Tokens are sent as Authorization: Bearer TOKEN."


def make_app(
    hive: Hive, rules: AccessRules, book: TokenBook, *, needs_token: bool, rate: RateLimit
) -> ASGIApp:
    """The ASGI application of a hive."""
    app = FastAPI(
        title="h2q-tui hive", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    for module in (hivemind_api, uploads_api, rounds_api):
        app.include_router(module.routes(hive))
    described: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not described:
            described.update(get_openapi(title=app.title, version="1", description=_ABOUT, routes=app.routes))
            described.setdefault("components", {})["schemas"] = components()
            for operations in described["paths"].values():
                for operation in operations.values():
                    # FastAPI's own answer, which no route here gives.
                    operation["responses"].pop("422", None)
        return described

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(document())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(document()), headers={"content-security-policy": _POLICY})

    @app.exception_handler(BadAdapter)
    async def not_taken(_request: Request, problem: BadAdapter) -> Response:
        return not_admitted(problem)

    @app.exception_handler(RequestRefused)
    async def refused(request: Request, problem: RequestRefused) -> Response:
        return refusal(request.url.path, problem)

    @app.exception_handler(H2QError)
    async def failed(request: Request, problem: H2QError) -> Response:
        return refusal(request.url.path, failure(problem))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, problem: HTTPException) -> Response:
        return refusal(request.url.path, RequestRefused(problem.status_code, problem.detail))

    @app.exception_handler(Exception)
    async def faulty(request: Request, _problem: Exception) -> Response:
        # It is raised again, to the gate, which logs it.
        return refusal(request.url.path, RequestRefused(500, INTERNAL))

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _problem: ClientDisconnect) -> Response:
        return Response(status_code=400)

    access = HiveAccess(app, book, always=needs_token, rate=rate, traffic=hive.traffic)
    return Gate(access, rules, refusal, SERVER_NAME)
