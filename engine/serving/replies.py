"""Responses that end with their client: one JSON document, or a stream of lines or of server-sent events.

A response is an asynchronous generator of what is sent. When the client closes its connection the generator is closed,
which cancels the generation behind it. What fails before the first item has a status of its own; what fails later is
the last item of the stream.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.core.errors import H2QError
from engine.http.log import log
from engine.http.refused import INTERNAL, RequestRefused, refusal_of
from engine.serving.errors import error_body

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

Items = AsyncGenerator[bytes, None]
encode = msgspec.json.Encoder().encode


def line(value: Any) -> bytes:
    """A line of NDJSON."""
    return encode(value) + b"\n"


def event(value: Any, name: str = "") -> bytes:
    """A server-sent event; `name` is its type, where the API names one."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encode(value) + b"\n\n"


END_OF_EVENTS = b"data: [DONE]\n\n"


def refusal(path: str, refused: RequestRefused) -> Response:
    """An error as a complete response."""
    headers = {"connection": "close"} if refused.status in (408, 413) else None
    body = encode(error_body(path, refused))
    return Response(body, refused.status, headers, "application/json; charset=utf-8")


def json_reply(value: Any, status: int = 200) -> Response:
    """A JSON document as a complete response."""
    return Response(encode(value), status, media_type=JSON)


class StreamedReply(Response):
    """Sends the items of a generator as they come."""

    def __init__(self, items: Items, media_type: str, *, failed: Callable[[Any], bytes] = line) -> None:
        """`failed` encodes the error body of a failure after the first item."""
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._items = items
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._work(scope, receive, send))
        left = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)
        if not work.cancelled() and (problem := work.exception()) is not None:
            raise problem

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._items) as items:
            try:
                first = await anext(items)
            except StopAsyncIteration:
                first = b""
            except Exception as problem:
                await refusal(scope["path"], _refused(problem))(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send(send, first)
            try:
                async for item in items:
                    await _send(send, item)
            except Exception as problem:
                await _send(send, self._failed(error_body(scope["path"], _refused(problem))))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class WholeReply(StreamedReply):
    """Sends the one JSON document that a generator yields."""

    def __init__(self, items: Items) -> None:
        super().__init__(items, JSON)


async def _send(send: Send, data: bytes) -> None:
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    with suppress(RuntimeError):
        while (await receive())["type"] != "http.disconnect":
            pass


def _refused(problem: Exception) -> RequestRefused:
    """What the client is told; the traceback of a fault goes to the log."""
    if isinstance(problem, RequestRefused):
        return problem
    if isinstance(problem, H2QError):
        return refusal_of(problem)
    log("".join(traceback.format_exception(problem)))
    return RequestRefused(500, INTERNAL)
