"""The routes that change the workspace's store of served models: create, copy, delete, and the blobs that create needs.

What was trained here, or added as a base, is not changed through HTTP: `h2q-tui models` does that.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed, error_text
from engine.core.files import check_free_space, make_dirs
from engine.export.create_model import CreateRequest, create_model
from engine.http.bodies import chunks, read_json
from engine.http.refused import RequestRefused, bad_request
from engine.models.ollama.layout import full_tag
from engine.models.ollama.model_store import ModelStore, UnknownModel
from engine.serving.errors import model_not_found
from engine.serving.front import Front
from engine.serving.names import PERSONAL, ApiModel
from engine.serving.ollama_types import OllamaMessage
from engine.serving.replies import NDJSON, Items, StreamedReply, WholeReply, encode, line

MAX_BLOB = 1 << 40
_QUEUED = 8
"""Parts of an upload between the connection and the disk."""
_WAIT_S = 0.01

T = TypeVar("T")


class CreateBody(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = ""
    name: str | None = ""
    from_: str | None = msgspec.field(name="from", default="")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    messages: list[OllamaMessage] | None = None
    system: str | None = ""
    template: str | None = ""
    parameters: dict[str, Any] | None = None
    license: str | list[str] | None = None
    quantize: str | None = ""
    quantization: str | None = ""
    """The older name."""
    stream: bool | None = None


class CopyBody(msgspec.Struct, frozen=True, kw_only=True):
    source: str = ""
    destination: str = ""


class DeleteBody(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = ""
    name: str | None = ""


def routes(front: Front) -> APIRouter:
    """The routes of the store."""
    router = APIRouter()
    store = ModelStore(front.ws)

    @router.post("/api/create")
    async def create(request: Request) -> Response:
        body = await read_json(request, CreateBody)
        wanted = await _create_request(front, body)
        items = _statuses(front, wanted)
        return WholeReply(_last(items)) if body.stream is False else StreamedReply(items, NDJSON)

    @router.post("/api/copy")
    async def copy(request: Request) -> Response:
        body = await read_json(request, CopyBody)
        source = await front.models.find(body.source)
        await _check_name(front, body.destination, "destination")
        if source.stored is not None:
            await _in_thread(store.copy, source.stored.tag, body.destination)
        else:
            made = CreateRequest(model=body.destination, from_=source.reference)
            async with aclosing(_steps(create_model(front.ws, made))) as steps:
                async for _status in steps:
                    pass
        front.models.forget()
        return Response(status_code=200)

    @router.delete("/api/delete")
    async def delete(request: Request) -> Response:
        body = await read_json(request, DeleteBody)
        name = body.model or body.name or ""
        model = await front.models.find(name)
        if model.stored is None:
            raise bad_request(
                f"{name} is not a model of this server's store; on its machine: h2q-tui models remove"
            )
        if model.in_use:
            raise bad_request(f"{name} is the model in use; h2q-tui rollback puts the one before it into use")
        try:
            await _in_thread(store.delete, model.stored.tag)
        except UnknownModel:
            raise model_not_found(name) from None
        front.models.forget()
        await front.unload(model)
        return Response(status_code=200)

    @router.head("/api/blobs/{digest}")
    async def has_blob(digest: str) -> Response:
        return Response(status_code=200 if store.has_blob(digest) else 404)

    @router.post("/api/blobs/{digest}")
    async def put_blob(request: Request, digest: str) -> Response:
        if store.has_blob(digest):
            return Response(status_code=200)
        declared = request.headers.get("content-length", "")
        make_dirs(store.folder)
        check_free_space(store.folder, int(declared) if declared.isdigit() else 0)
        await _upload(store, digest, request)
        return Response(status_code=201)

    return router


async def _create_request(front: Front, body: CreateBody) -> CreateRequest:
    name = body.model or body.name or ""
    await _check_name(front, name, "model")
    if not body.from_ and not body.files:
        raise bad_request("neither 'from' or 'files' was specified")
    origin = (await front.models.find(body.from_)).reference if body.from_ else ""
    turns = [ChatMessage(role=turn.role.lower(), content=turn.content or "") for turn in body.messages or ()]
    licenses = [body.license] if isinstance(body.license, str) else body.license or []
    return CreateRequest(
        model=name,
        from_=origin,
        files=body.files or {},
        adapters=body.adapters or {},
        messages=turns,
        system=body.system or "",
        template=body.template or "",
        parameters={key: value for key, value in (body.parameters or {}).items() if value is not None},
        license=[text for text in licenses if text],
        quantize=body.quantize or body.quantization or "",
    )


async def _check_name(front: Front, name: str, field: str) -> None:
    """Refuses a name that belongs to a model outside the store: the new one would never be found by it."""
    if not name:
        raise bad_request(f"{field} is required")
    if full_tag(name) == full_tag(PERSONAL):
        raise bad_request(f"{PERSONAL} names the model in use")
    taken: ApiModel | None
    try:
        taken = await front.models.find(name)
    except RequestRefused:
        taken = None
    if taken is not None and taken.stored is None and taken.tag == full_tag(name):
        raise bad_request(f"{name} is a model of the workspace; choose another name")


async def _statuses(front: Front, wanted: CreateRequest) -> Items:
    try:
        async with aclosing(_steps(create_model(front.ws, wanted))) as steps:
            async for status in steps:
                front.models.forget()
                yield line({"status": status})
    finally:
        front.models.forget()


async def _last(items: Items) -> Items:
    last = encode({"status": "success"})
    async with aclosing(items) as lines:
        async for item in lines:
            last = item
    yield last


async def _steps(steps: Iterator[T]) -> AsyncGenerator[T, None]:
    """The items of a blocking generator, each made in a thread. It ends at its next item when this one is closed."""
    end = object()
    pending: asyncio.Future[Any] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(_in_thread(next, steps, end))
            item = await asyncio.shield(pending)
            if item is end:
                return
            yield item
    finally:
        if pending is not None:
            await asyncio.wait([pending])
        close = getattr(steps, "close", None)
        if close is not None:
            await _in_thread(close)


async def _in_thread(work: Any, *arguments: Any) -> Any:
    """Runs blocking work. Raises H2QError, also for a full disk."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except OSError as problem:
        raise RunFailed(error_text(problem)) from problem


async def _upload(store: ModelStore, digest: str, request: Request) -> None:
    """Writes a body to the store as it arrives. Raises H2QError, RequestRefused, ClientDisconnect; nothing remains then."""
    parts: queue.Queue[bytes | None] = queue.Queue(_QUEUED)
    failed = False

    def arrived() -> Iterator[bytes]:
        while (part := parts.get()) is not None:
            yield part
        if failed:
            raise bad_request("the upload was not complete")

    async def put(part: bytes | None) -> None:
        while not work.done():
            try:
                parts.put_nowait(part)
                return
            except queue.Full:
                await asyncio.sleep(_WAIT_S)

    work = asyncio.ensure_future(_in_thread(store.put_blob, digest, arrived()))
    try:
        async for part in chunks(request, MAX_BLOB):
            await put(part)
    except BaseException:
        failed = True
        raise
    finally:
        await put(None)
        if failed:
            await asyncio.wait([work])
            work.exception()
    await work
