"""The routes of rounds, versions and contributors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version as installed
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from engine.core.i18n import _
from engine.hive.archives import stream_zip
from engine.hive.protocol import (
    API,
    SERVER_NAME,
    Aggregated,
    AggregateRequest,
    ContributorList,
    RollbackRequest,
    RoundList,
    ServerInfo,
    VersionInfo,
    VersionList,
    VersionState,
)
from engine.hive.server.access import caller_of
from engine.hive.server.described import answers, takes
from engine.hive.server.hive import Hive
from engine.hive.server.replies import reply
from engine.hive.versions import MEMBERS
from engine.http.bodies import read_json
from engine.http.refused import RequestRefused

_RANGE = re.compile(r"bytes=(\d{1,18})-")


def routes(hive: Hive) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix=API, tags=["rounds"])

    @router.get("/server", summary="What this hive takes", **answers(ServerInfo))
    async def server(request: Request) -> Response:
        base = await asyncio.to_thread(hive.intake.base)
        limits = hive.limits
        return reply(
            ServerInfo(
                name=SERVER_NAME,
                version=installed("h2q-tui"),
                base_model=base.name,
                base_fingerprint=base.fingerprint,
                round=await asyncio.to_thread(hive.store.round_number),
                min_adapters=limits.min_adapters,
                max_bytes=limits.max_bytes,
                max_samples=limits.max_samples,
                user=caller_of(request).name,
                gated=hive.rounds.is_gated,
            )
        )

    @router.post(
        "/aggregate",
        summary="Join the adapters of the open round",
        **takes(AggregateRequest, required=False),
        **answers(Aggregated),
    )
    async def aggregate(request: Request) -> Response:
        _check_may_aggregate(request)
        has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        wanted = await read_json(request, AggregateRequest) if has_body else AggregateRequest()
        named = request.query_params.get("version", "")
        if named:
            wanted = AggregateRequest(version=named, method=wanted.method, rank=wanted.rank)
        # Shielded: the work is not lost when the client does not wait for it.
        version = await asyncio.shield(hive.start(hive.rounds.aggregate(wanted)))
        published = version.state is VersionState.CURRENT
        return reply(
            Aggregated(
                success=published,
                version=version.version,
                num_adapters=len(version.parents),
                message="Aggregation completed successfully" if published else version.reason,
                detail=version,
            )
        )

    @router.get("/rounds", summary="Rounds, newest first", **answers(RoundList))
    async def rounds() -> Response:
        return reply(RoundList(rounds=await asyncio.to_thread(hive.store.rounds)))

    @router.get("/contributors", summary="What came of each user", **answers(ContributorList))
    async def contributors() -> Response:
        return reply(ContributorList(contributors=await asyncio.to_thread(hive.store.contributors)))

    @router.get("/versions", summary="Versions with their lineage, newest first", **answers(VersionList))
    async def versions() -> Response:
        return reply(VersionList(versions=await asyncio.to_thread(hive.rounds.versions.all)))

    @router.get("/versions/{version}", summary="One version, or latest", **answers(VersionInfo))
    async def version_info(version: str) -> Response:
        return reply(await asyncio.to_thread(hive.rounds.versions.find, version))

    @router.get("/versions/{version}/archive", summary="A zip file that PEFT loads when it is unpacked")
    async def archive(request: Request, version: str) -> Response:
        found = await asyncio.to_thread(hive.rounds.versions.find, version)
        files = [(name, await asyncio.to_thread(hive.rounds.versions.file, found, name)) for name in MEMBERS]
        size = await asyncio.to_thread(_archive_size, tuple(files))
        start = _range_start(request.headers.get("range", ""), size)
        headers = {
            "content-disposition": f'attachment; filename="hive_{found.version}.zip"',
            "content-length": str(size - start),
            "accept-ranges": "bytes",
            "x-adapter-sha256": found.sha256,
        }
        if start:
            headers["content-range"] = f"bytes {start}-{size - 1}/{size}"
        return StreamingResponse(
            _from(stream_zip(files), start), 206 if start else 200, headers, "application/zip"
        )

    @router.post(
        "/rollback", summary="Return to an earlier version", **takes(RollbackRequest), **answers(VersionInfo)
    )
    async def rollback(request: Request) -> Response:
        _check_may_aggregate(request)
        wanted = await read_json(request, RollbackRequest)
        return reply(await asyncio.to_thread(hive.rounds.versions.roll_back, wanted.version))

    return router


def _check_may_aggregate(request: Request) -> None:
    if not caller_of(request).may_aggregate:
        raise RequestRefused(
            403,
            _(
                "this token may not aggregate: h2q-tui hive token create NAME --may-aggregate makes one that may"
            ),
        )


@lru_cache(maxsize=8)
def _archive_size(files: tuple[tuple[str, Path], ...]) -> int:
    return sum(len(part) for part in stream_zip(files))


def _range_start(header: str, size: int) -> int:
    """Where a download continues; 0 for all of it. Raises RequestRefused (416) behind the end."""
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return 0
    start = int(match[1])
    if start >= size:
        raise RequestRefused(416, _("the archive has {size} bytes").format(size=size))
    return start


def _from(parts: Iterator[bytes], start: int) -> Iterator[bytes]:
    """What comes after the first `start` bytes."""
    for part in parts:
        if start < len(part):
            yield part[start:]
        start = max(0, start - len(part))
