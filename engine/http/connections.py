"""Connections that send or read too slowly are closed: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, ClassVar

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
        if self._head_is_complete():
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

    def _head_is_complete(self) -> bool:
        return self.conn.their_state is not h11.IDLE

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abort()


class LimitedProtocol(TimedProtocol):
    """A `TimedProtocol` that also bounds the connections of one address, for servers that strangers reach.

    Of those that have not sent the head of a first request the oldest is closed when there are too many, so that a
    client that only opens connections does not keep another one at the same address from being answered.
    """

    MOST = 512
    """Connections of one address."""
    MOST_SILENT = 32
    """Connections of one address that have not sent a request."""
    _of_address: ClassVar[dict[str, OrderedDict[LimitedProtocol, bool]]] = {}
    """The open connections of each address, oldest first; True for those that have sent a request."""
    _address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        connections = self._of_address.setdefault(self._address, OrderedDict[LimitedProtocol, bool]())
        silent = [one for one, has_sent in connections.items() if not has_sent]
        if len(silent) >= self.MOST_SILENT:
            # Several connections may be accepted before a closed one is lost.
            del connections[silent[0]]
            silent[0]._abort()
        connections[self] = False
        if len(connections) > self.MOST:
            self._abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        connections = self._of_address.get(self._address)
        if connections is not None and self in connections and self._head_is_complete():
            connections[self] = True

    def connection_lost(self, exc: Exception | None) -> None:
        connections = self._of_address.get(self._address)
        if connections is not None:
            connections.pop(self, None)
            if not connections:
                del self._of_address[self._address]
        super().connection_lost(exc)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancels a timer; what stands in its place is None."""
    if timer is not None:
        timer.cancel()
    return None
