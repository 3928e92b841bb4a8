"""The routes by which `h2q-tui hive upload` sends an adapter: announced, in parts, and finished."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.core.i18n import _
from engine.hive.protocol import (
    API,
    MAX_PART,
    AdapterInfo,
    AdapterList,
    Admitted,
    OpenUpload,
    UploadState,
)
from engine.hive.server.access import caller_of
from engine.hive.server.described import answers, takes, takes_bytes
from engine.hive.server.hive import Hive, sender
from engine.hive.server.replies import reply
from engine.http.bodies import chunks, read_json
from engine.http.refused import RequestRefused, bad_request


def routes(hive: Hive) -> APIRouter:
    """The routes of uploads and of the adapters that came of them."""
    router = APIRouter(prefix=API, tags=["adapters"])

    @router.post("/uploads", summary="Announce an adapter", **takes(OpenUpload), **answers(UploadState, 201))
    async def open_upload(request: Request) -> Response:
        announced = await read_json(request, OpenUpload)
        user = sender(caller_of(request), announced.user_id)
        return reply(await hive.counted(user, 0, hive.uploads.open, user, announced), 201)

    @router.get("/uploads/{upload_id}", summary="How much has arrived", **answers(UploadState))
    async def upload_state(request: Request, upload_id: str) -> Response:
        return reply(await asyncio.to_thread(hive.uploads.state, upload_id, caller_of(request).name))

    @router.put(
        "/uploads/{upload_id}",
        summary="Send a part",
        **takes_bytes(query=("offset",)),
        **answers(UploadState),
    )
    async def receive(request: Request, upload_id: str) -> Response:
        offset = request.query_params.get("offset", "")
        if not offset.isascii() or not offset.isdigit() or len(offset) > 15:
            raise bad_request(_("offset is a number of bytes"))
        own = caller_of(request).name
        state = await hive.uploads.receive(upload_id, own, int(offset), chunks(request, 4 * MAX_PART))
        user = await asyncio.to_thread(hive.uploads.user_of, upload_id)
        await hive.counted(user, state.offset - int(offset), hive.uploads.check_header, state)
        return reply(state)

    @router.post("/uploads/{upload_id}/finish", summary="Have it admitted", **answers(Admitted, 201))
    async def finish(request: Request, upload_id: str) -> Response:
        own = caller_of(request).name
        user = await asyncio.to_thread(hive.uploads.user_of, upload_id)
        adapter_id = await hive.admit(user, 0, hive.uploads.finish, upload_id, own)
        stored = await asyncio.to_thread(hive.store.adapter, adapter_id)
        return reply(admitted(stored), 201)

    @router.delete("/uploads/{upload_id}", summary="Give an upload up", status_code=204)
    async def drop(request: Request, upload_id: str) -> Response:
        await asyncio.to_thread(hive.uploads.drop, upload_id, caller_of(request).name)
        return Response(status_code=204)

    @router.get("/adapters", summary="Adapters, newest first", **answers(AdapterList))
    async def adapters(request: Request) -> Response:
        user = request.query_params.get("user", "")
        return reply(AdapterList(adapters=await asyncio.to_thread(hive.store.adapters, user)))

    @router.delete("/adapters/{adapter_id}", summary="Withdraw an adapter that waits", status_code=204)
    async def withdraw(request: Request, adapter_id: str) -> Response:
        caller = caller_of(request)
        owner = "" if caller.may_aggregate else caller.name
        if not await asyncio.to_thread(hive.store.withdraw, adapter_id, owner):
            raise RequestRefused(404, _("no such adapter waits in this round"))
        return Response(status_code=204)

    return router


def admitted(adapter: AdapterInfo) -> Admitted:
    """The answer to an adapter that was stored."""
    return msgspec.convert(
        {
            "adapter_id": adapter.id,
            "round": adapter.round,
            "sha256": adapter.sha256,
            "norm": adapter.norm,
            "samples_counted": adapter.samples_counted,
        },
        Admitted,
    )
