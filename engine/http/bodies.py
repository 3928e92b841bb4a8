"""The body of a request, within a limit of size and time, decoded into a struct."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from fastapi import Request

from engine.http.refused import RequestRefused, bad_request

MAX_BODY = 7 << 20
"""Bytes of a JSON body: a line to the inference service holds what it carries."""
BODY_S = 30.0
"""Seconds in which a JSON body must have arrived."""
CHUNK_S = 15.0
"""Seconds until the next part of a large body."""
SLOWEST = 1 << 10
"""Bytes a second that a large body has on average after `SLOW_S` seconds."""
SLOW_S = 60.0
TOO_LARGE = "the request body is larger than {limit:,} bytes"

T = TypeVar("T")


def check_length(request: Request, limit: int) -> None:
    """Refuses a body that says it is too large before it is read. Raises RequestRefused."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise RequestRefused(413, TOO_LARGE.format(limit=limit))


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The parts of a body. Raises RequestRefused when it is too large or too slow, ClientDisconnect."""
    check_length(request, limit)
    stream, size, started = request.stream().__aiter__(), 0, time.monotonic()
    while True:
        try:
            part = await asyncio.wait_for(stream.__anext__(), CHUNK_S)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestRefused(408, "the request body did not arrive in time") from None
        size += len(part)
        passed = time.monotonic() - started
        if passed > SLOW_S and size < passed * SLOWEST:
            raise RequestRefused(408, "the request body arrives too slowly")
        if size > limit:
            raise RequestRefused(413, TOO_LARGE.format(limit=limit))
        yield part


async def read_json(request: Request, type_: type[T]) -> T:
    """The body as `type_`; the Content-Type does not matter, as in Ollama. Raises RequestRefused, ClientDisconnect."""
    try:
        async with asyncio.timeout(BODY_S):
            body = b"".join([part async for part in chunks(request, MAX_BODY)])
    except TimeoutError:
        raise RequestRefused(408, "the request body did not arrive in time") from None
    if not body.strip():
        raise bad_request("missing request body")
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as problem:
        raise bad_request(f"invalid request: {problem}") from problem
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise bad_request("the request body is not valid JSON") from problem
