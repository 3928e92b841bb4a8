"""The client of the inference service, which it starts on first use. Imports no backend.

Each request has its own connection; closing it cancels, so that leaving a `generate` loop frees the model.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, H2QError, NotEnoughData, RunFailed, ServiceUnreachable
from engine.core.i18n import _, language
from engine.core.paths import Workspace
from engine.core.private_socket import check_peer, check_private
from engine.inference.language_model import Generated, RenderedPrompt, Sampling
from engine.inference.protocol import (
    MAX_LINE,
    Done,
    Embed,
    Embedded,
    Failure,
    FreeMemory,
    Generate,
    GetLogLikelihood,
    GetStatus,
    Load,
    LoadedModel,
    LogLikelihood,
    Render,
    Reply,
    Request,
    ServiceStatus,
    Shutdown,
    TextDelta,
    Unload,
    log_path,
    socket_path,
)

START_TIMEOUT = 30.0
"""Seconds until a started service must accept connections (it opens its socket before it imports torch)."""

_started: list[subprocess.Popen[bytes]] = []
"""Services started by this process. They outlive it; kept to reap those that ended."""

T = TypeVar("T")
_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_ERRORS: dict[int, type[H2QError]] = {
    2: BadInput,
    3: NotEnoughData,
    4: ServiceUnreachable,
}


class InferenceClient:
    """Client of the inference service of one workspace.

    Every method starts the service if it is not running, and raises ServiceUnreachable with the last line of
    its log if that fails. A service that dies is restarted once.
    """

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._process: subprocess.Popen[bytes] | None = None
        self.last: Generated | None = None
        """Statistics of the last generation; None while it runs, and when it was cancelled."""
        self.tokens = 0
        """Sampled so far in the last generation; 0 when unknown."""

    async def generate(
        self, model: str, messages: Sequence[ChatMessage], sampling: Sampling | None = None
    ) -> AsyncGenerator[str, None]:
        """Text deltas of whole characters. Closing the generator (`aclose`) cancels.

        `model` is a name as in `open_language_model`. Raises BadInput for an unknown or broken model.
        """
        self.last, self.tokens = None, 0
        request = Generate(model=model, messages=list(messages), sampling=sampling or Sampling())
        stream = self._stream(request)
        try:
            async for reply in stream:
                if isinstance(reply, TextDelta):
                    self.tokens = reply.tokens
                    yield reply.text
                else:
                    self.last = msgspec.json.decode(reply.result, type=Generated)
        finally:
            await stream.aclose()

    async def answer(
        self, model: str, messages: Sequence[ChatMessage], sampling: Sampling | None = None
    ) -> str:
        """The whole answer."""
        return "".join([delta async for delta in self.generate(model, messages, sampling)])

    async def load(self, model: str, *, keep_s: float | None = None) -> LoadedModel:
        """Loads a model before its first use; `keep_s` as in the request. Raises BadInput."""
        return await self._request(Load(model=model, keep_s=keep_s), LoadedModel)

    async def render(self, request: Render) -> RenderedPrompt:
        """What would be sent to the model. Raises BadInput."""
        return await self._request(request, RenderedPrompt)

    async def embed(self, request: Embed) -> Embedded:
        """Vectors of texts. Raises BadInput, UsageProblem."""
        return await self._request(request, Embedded)

    async def stream(self, request: Generate) -> AsyncGenerator[TextDelta | Generated, None]:
        """The text deltas of an answer, then its statistics. As `generate`, for several answers at a time."""
        replies = self._stream(request)
        try:
            async for reply in replies:
                if isinstance(reply, TextDelta):
                    yield reply
                else:
                    yield msgspec.json.decode(reply.result, type=Generated)
        finally:
            await replies.aclose()

    async def loglikelihood(self, model: str, messages: Sequence[ChatMessage]) -> LogLikelihood:
        """Log-likelihood of the assistant turns of `messages`. Raises BadInput."""
        return await self._request(GetLogLikelihood(model=model, messages=list(messages)), LogLikelihood)

    async def status(self, *, start: bool = False) -> ServiceStatus | None:
        """The status of the service; None when it is not running and `start` is False."""
        if not start and not self._listening():
            return None
        try:
            return await self._request(GetStatus(), ServiceStatus, start=start)
        except ServiceUnreachable:
            if start:
                raise
            return None

    async def unload(self, model: str | None = None) -> None:
        """Unloads one model, or all. Does nothing when the service is not running."""
        with suppress(ServiceUnreachable):
            await self._request(Unload(model=model), msgspec.Raw, start=False)

    async def shutdown(self) -> None:
        """Ends the service; returns once its socket is closed."""
        with suppress(ServiceUnreachable):
            await self._request(Shutdown(), msgspec.Raw, start=False)
        for _attempt in range(200):
            if not self._listening():
                return
            await asyncio.sleep(0.05)

    async def _request(self, request: Request, type_: type[T], *, start: bool = True) -> T:
        stream = self._stream(request, start=start)
        try:
            async for reply in stream:
                if isinstance(reply, Done):
                    return msgspec.json.decode(reply.result, type=type_)
        finally:
            await stream.aclose()
        raise _unreachable(self._ws)

    async def _stream(
        self, request: Request, *, start: bool = True
    ) -> AsyncGenerator[TextDelta | Done, None]:
        """The replies to one request, the last one Done.

        A service that dies before its first reply is restarted once; one that dies later raises ServiceUnreachable.
        """
        for attempt in (1, 2):
            replied = False
            try:
                async for reply in self._replies(request, start=start):
                    replied = True
                    yield reply
                return
            except (ConnectionError, asyncio.IncompleteReadError, FileNotFoundError) as problem:
                if replied or attempt == 2 or not start:
                    raise _unreachable(self._ws) from problem

    async def _replies(self, request: Request, *, start: bool) -> AsyncGenerator[TextDelta | Done, None]:
        reader, writer = await self._connect(start=start)
        try:
            request = msgspec.structs.replace(request, language=language())
            writer.write(_ENCODER.encode(request) + b"\n")
            await writer.drain()
            while True:
                line = await reader.readuntil(b"\n")
                reply = _DECODER.decode(line)
                if isinstance(reply, Failure):
                    raise _ERRORS.get(reply.exit_code, RunFailed)(reply.message, hint=reply.hint)
                yield reply
                if isinstance(reply, Done):
                    return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, *, start: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await self._open()
        except OSError as problem:
            if not start:
                raise _unreachable(self._ws) from problem
        self._start()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return await self._open()
            except OSError as problem:
                # Exit code 0: another service holds the lock and will accept connections soon.
                failed = self._process is not None and self._process.poll() not in (None, 0)
                if failed or time.monotonic() > deadline:
                    raise _unreachable(self._ws) from problem
            await asyncio.sleep(0.03)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the service. Raises OSError, ServiceUnreachable when the socket is another user's."""
        path = socket_path(self._ws)
        check_private(path)
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
        try:
            check_peer(writer.get_extra_info("socket"))
        except ServiceUnreachable:
            writer.close()
            raise
        return reader, writer

    def _start(self) -> None:
        """Starts the service in its own session, so that it outlives this process and its terminal."""
        if self._process is not None and self._process.poll() is None:
            return
        # The modules of runs import psutil, which a client of a running service does not need.
        from engine.runs.own_process import engine_command, engine_environment

        _started[:] = [process for process in _started if process.poll() is None]
        log = log_path(self._ws)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [*engine_command(), "serve", str(self._ws.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=engine_environment(),
                )
                _started.append(self._process)
        except OSError as problem:
            raise ServiceUnreachable(
                _("the inference service cannot be started: {reason}").format(reason=problem),
                hint="h2q-tui check",
            ) from problem

    def _listening(self) -> bool:
        """Whether the socket accepts connections."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(socket_path(self._ws)))
            except OSError:
                return False
        return True


def free_service_memory(ws: Workspace, needed_mb: float, budget_mb: float) -> bool:
    """Makes the service exit unless it fits into `budget_mb` together with a run of `needed_mb`.

    True when it unloaded its models and exits; the next request starts it again. Starts no service and never
    raises: a run must not fail because of it.
    """

    async def request() -> bool:
        client = InferenceClient(ws)
        return await client._request(FreeMemory(needed_mb=needed_mb, budget_mb=budget_mb), bool, start=False)

    try:
        return asyncio.run(asyncio.wait_for(request(), timeout=15.0))
    except (H2QError, OSError, TimeoutError, msgspec.MsgspecError):
        return False


def _unreachable(ws: Workspace) -> ServiceUnreachable:
    """The error with the last line of the service's log, usually the reason."""
    try:
        lines = log_path(ws).read_bytes()[-4096:].decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    message = _("the inference service does not answer")
    return ServiceUnreachable(f"{message}: {last}" if last else message, hint=f"tail {log_path(ws)}")
