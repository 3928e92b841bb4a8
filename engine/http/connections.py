"""Connections that send or read too slowly are closed: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0
"""Seconds in which the head of a request must have arrived."""
UNREAD_S = 60.0
"""Seconds that an answer may wait in the buffers for its reader."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 with a limit of time for the head of each request and for the reader of each answer."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self.loop.call_later(HEADERS_S, self._abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head = _stopped(self._head)
        elif self._head is None:
            # The head of a later request on the same connection has begun.
            self._head = self.loop.call_later(HEADERS_S, self._abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = _stopped(self._unread)
        self._unread = self.loop.call_later(UNREAD_S, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = _stopped(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._unread = _stopped(self._head), _stopped(self._unread)
        super().connection_lost(exc)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abort()


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancels a timer; what stands in its place is None."""
    if timer is not None:
        timer.cancel()
    return None
