"""The application: the routes of all APIs behind the gate."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.http.gate import AccessRules, Gate
from engine.http.refused import INTERNAL, RequestRefused, refusal_of
from engine.models.ollama.running import OWN_SERVER
from engine.serving import (
    anthropic_api,
    ollama_answers,
    ollama_models,
    ollama_store,
    openai_api,
    responses_api,
)
from engine.serving.front import Front
from engine.serving.replies import refusal


def make_app(ws: Workspace, rules: AccessRules) -> ASGIApp:
    """The ASGI application that serves the models of `ws`."""
    front = Front(ws)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for module in (ollama_models, ollama_store, ollama_answers, openai_api, responses_api, anthropic_api):
        app.include_router(module.routes(front))

    @app.exception_handler(RequestRefused)
    async def refused(request: Request, problem: RequestRefused) -> Response:
        return refusal(request.url.path, problem)

    @app.exception_handler(H2QError)
    async def failed(request: Request, problem: H2QError) -> Response:
        return refusal(request.url.path, refusal_of(problem))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, problem: HTTPException) -> Response:
        words = {404: "404 page not found", 405: "405 method not allowed"}
        return refusal(
            request.url.path,
            RequestRefused(problem.status_code, words.get(problem.status_code, problem.detail)),
        )

    @app.exception_handler(Exception)
    async def faulty(request: Request, _problem: Exception) -> Response:
        # It is raised again, to the gate, which logs it.
        return refusal(request.url.path, RequestRefused(500, INTERNAL))

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _problem: ClientDisconnect) -> Response:
        return Response(status_code=400)

    return Gate(app, rules, refusal, OWN_SERVER)
