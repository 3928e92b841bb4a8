"""The routes of Ollama's API about models: version, tags, show, ps, and what a server without a registry refuses."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from engine.http.bodies import read_json
from engine.http.refused import RequestRefused
from engine.serving.description import describe, details
from engine.serving.front import Front
from engine.serving.names import ApiModel
from engine.serving.replies import json_reply

API_VERSION = "0.12.0"
"""The version of Ollama whose API this is: programs ask for features by it."""
_FOR_EVER = timedelta(days=365 * 100)


class NamedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A request about one model; `name` is the older field."""

    model: str | None = ""
    name: str | None = ""
    verbose: bool | None = None

    @property
    def named(self) -> str:
        return self.model or self.name or ""


def routes(front: Front) -> APIRouter:
    """The routes about models."""
    router = APIRouter()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def root() -> Response:
        return PlainTextResponse("Ollama is running")

    @router.api_route("/api/version", methods=["GET", "HEAD"])
    async def api_version() -> Response:
        return json_reply({"version": API_VERSION, "h2q": version("h2q-tui")})

    @router.api_route("/api/tags", methods=["GET", "HEAD"])
    async def tags() -> Response:
        models = sorted(await front.models.all(), key=lambda model: model.modified_at, reverse=True)
        return json_reply({"models": [_tag(model) for model in models]})

    @router.post("/api/show")
    async def show(request: Request) -> Response:
        body = await read_json(request, NamedModel)
        model = await front.models.find(body.named)
        return json_reply(await describe(front.ws, model))

    @router.api_route("/api/ps", methods=["GET", "HEAD"])
    async def ps() -> Response:
        status = await front.client.status()
        # The name of the model itself, not `personal`, which stands before it.
        served = {model.reference: model for model in await front.models.all()}
        loaded = status.models if status is not None else []
        rows = [
            _loaded(served[model.name], model.memory_mb, model.keep_s, model.idle_s, model.context)
            for model in loaded
            if model.name in served
        ]
        return json_reply({"models": rows})

    @router.post("/api/pull")
    async def pull() -> Response:
        raise RequestRefused(
            400,
            "this server is offline and pulls no models; on its machine: h2q-tui models fetch, h2q-tui models add",
        )

    @router.post("/api/push")
    async def push() -> Response:
        raise RequestRefused(
            400, "this server is offline and pushes no models; h2q-tui export writes files of a model"
        )

    return router


def _tag(model: ApiModel) -> dict[str, Any]:
    return {
        "name": model.tag,
        "model": model.tag,
        "modified_at": model.modified_at,
        "size": model.bytes,
        "digest": model.digest,
        "details": details(model),
    }


def _loaded(model: ApiModel, memory_mb: float, keep_s: float, idle_s: float, context: int) -> dict[str, Any]:
    left = _FOR_EVER if keep_s < 0 else timedelta(seconds=keep_s - idle_s)
    expires = datetime.fromtimestamp(time.time(), UTC) + left
    return {
        "name": model.tag,
        "model": model.tag,
        "size": round(memory_mb * 2**20),
        "digest": model.digest,
        "details": details(model),
        "expires_at": expires.isoformat().replace("+00:00", "Z"),
        "size_vram": 0,
        "context_length": context,
    }
