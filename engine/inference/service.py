"""The inference service: one resident process per workspace that loads models and serves them over a socket.

It opens its socket before it imports torch, runs one generation at a time, and exits after a while without
requests.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from engine.core.errors import H2QError, ServiceUnreachable
from engine.core.i18n import set_language
from engine.core.paths import Workspace
from engine.core.private_socket import check_peer
from engine.inference import model_cache
from engine.inference.language_model import CountedText, Generated, ScoredText
from engine.inference.model_cache import ModelCache
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
    LogLikelihood,
    Render,
    Reply,
    Request,
    ServiceStatus,
    Shutdown,
    TextDelta,
    Unload,
    socket_path,
)
from engine.machine.process_memory import MB, tree_memory
from engine.runs import lock, network_guard, runtime_dirs
from engine.runs.shared_memory import service_lock, write_service_pid

EXIT_S = 2 * model_cache.IDLE_S
"""Seconds without a request after which the service exits; the next request starts it again."""
REQUEST_S = 30.0
"""Seconds in which a client must send its request."""
TICK_S = 1.0
BACKLOG = 1024
"""Connections that may wait to be accepted."""
_LOG_CHARACTERS = 2_000
"""Longest line about a failed request, which may quote what was sent."""
NICENESS = 5

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def main(data_dir: str) -> int:
    """Serves the workspace until shutdown or idle; exit code 0 also when another service holds the lock."""
    ws = Workspace(Path(data_dir).resolve())
    try:
        runtime_dirs.make_socket_dir(ws.runtime)
    except ServiceUnreachable as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    runtime_dirs.remove_stale_dirs(ws.runtime)
    lock_file = lock.acquire(service_lock(ws))
    if lock_file is None:
        return 0
    write_service_pid(lock_file)
    with suppress(OSError):
        os.nice(NICENESS)
    try:
        with network_guard.loopback_only():
            asyncio.run(Service(ws).run())
    finally:
        os.close(lock_file)
    return 0


class Service:
    """Handles the requests of all clients. Generations are queued: two at once would each take twice as long."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._models = ModelCache(ws)
        self._compute = asyncio.Lock()
        self._waiting = 0
        self._generating = ""
        self._started = self._last_request = time.monotonic()
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serves until `Shutdown`, SIGTERM, SIGINT or `EXIT_S` without a request."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        path = socket_path(self._ws)
        # With the lock taken, a socket that exists belongs to a dead service.
        path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(
                self._connected, path=str(path), limit=MAX_LINE, backlog=BACKLOG
            )
        finally:
            os.umask(old)
        try:
            while not self._stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), TICK_S)
                self._models.unload_idle()
                idle = time.monotonic() - self._last_request
                unused = not self._connections and idle >= EXIT_S and not self._models.keeps_for_ever
                if unused or not self._ws.root.is_dir():
                    break
        finally:
            path.unlink(missing_ok=True)
            server.close()
            for task in list(self._connections):
                task.cancel()
            if self._connections:
                await asyncio.wait(self._connections, timeout=5.0)
            self._models.unload()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            check_peer(writer.get_extra_info("socket"))
            line = await asyncio.wait_for(reader.readuntil(b"\n"), REQUEST_S)
            self._last_request = time.monotonic()
            await self._handle_until_closed(reader, writer, line)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, TimeoutError):
            pass
        except ServiceUnreachable as problem:
            print(problem, file=sys.stderr)
        finally:
            self._last_request = time.monotonic()
            self._connections.discard(task)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _handle_until_closed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes
    ) -> None:
        """Handles the request, and cancels it as soon as the client closes its end."""
        work = asyncio.create_task(self._handle(line, writer))
        closed = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({work, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, closed):
                task.cancel()
            await asyncio.gather(work, closed, return_exceptions=True)
        if not work.cancelled() and (problem := work.exception()) is not None:
            raise problem

    async def _handle(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = _DECODER.decode(line)
            set_language(request.language)
            async with aclosing(self._replies(request)) as replies:
                async for reply in replies:
                    writer.write(_ENCODER.encode(reply) + b"\n")
                    await writer.drain()
        except H2QError as problem:
            failure = Failure(message=problem.message, hint=problem.hint, exit_code=problem.exit_code)
            writer.write(_ENCODER.encode(failure) + b"\n")
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as problem:
            # Out of memory, a malformed request: the client gets the error, the log the traceback.
            for text in traceback.format_exception(problem):
                print(_cut(text), end="", file=sys.stderr)
            message = _cut(f"{type(problem).__name__}: {problem}")
            writer.write(_ENCODER.encode(Failure(message=message)) + b"\n")
            await writer.drain()

    async def _replies(self, request: Request) -> AsyncGenerator[Reply, None]:
        match request:
            case Generate():
                asked = time.monotonic()
                prompt = request.messages if request.raw is None else request.raw
                async with (
                    self._queued(request.model),
                    self._models.use(request.model, request.keep_s) as model,
                    aclosing(model.generate(prompt, request.sampling)) as stream,
                ):
                    load_s = time.monotonic() - asked
                    async for item in stream:
                        yield (
                            _done(msgspec.structs.replace(item, load_s=load_s))
                            if isinstance(item, Generated)
                            else _delta(item)
                        )
            case Render():
                async with self._models.use(request.model) as model:
                    if request.turns:
                        yield _done(await model.tool_prompt(request.turns, request.tools))
                        return
                    prompt = request.messages if request.raw is None else request.raw
                    yield _done(await model.render_prompt(prompt, request.sampling))
            case Embed():
                asked = time.monotonic()
                async with (
                    self._queued(request.model),
                    self._models.use(request.model, request.keep_s) as model,
                ):
                    load_s = time.monotonic() - asked
                    vectors, tokens = await model.embed(request.texts, truncate=request.truncate)
                yield _done(Embedded(vectors=vectors, tokens=tokens, load_s=load_s))
            case GetLogLikelihood():
                async with self._queued(request.model), self._models.use(request.model) as model:
                    nll = await model.conversation_nll(request.messages)
                value = -nll.nats if math.isfinite(nll.nats) else None
                yield _done(LogLikelihood(loglikelihood=value, bytes=nll.bytes))
            case Load():
                async with self._models.use(request.model, request.keep_s):
                    pass
                loaded = [model for model in self._models.status() if model.name == request.model]
                yield _done(loaded[0] if loaded else self._models.status()[0])
            case Unload():
                yield _done(self._models.unload(request.model))
            case FreeMemory():
                fits = self._memory_mb() + request.needed_mb <= request.budget_mb
                if not fits:
                    self._models.unload()
                yield _done(not fits)
                # torch alone takes 250 MB, which only the end of the process frees.
                if not fits and len(self._connections) == 1:
                    self._stop.set()
            case GetStatus():
                yield _done(self._status())
            case Shutdown():
                yield _done(True)
                self._stop.set()

    @asynccontextmanager
    async def _queued(self, model: str) -> AsyncIterator[None]:
        """One compute-bound request at a time; the others wait here."""
        self._waiting += 1
        try:
            await self._compute.acquire()
        finally:
            self._waiting -= 1
        self._generating = model
        try:
            yield
        finally:
            self._generating = ""
            self._compute.release()

    def _memory_mb(self) -> float:
        # llama.cpp serves each GGUF model in a process of its own.
        return tree_memory() / MB

    def _status(self) -> ServiceStatus:
        return ServiceStatus(
            pid=os.getpid(),
            memory_mb=round(self._memory_mb(), 1),
            models=self._models.status(),
            generating=self._generating,
            waiting=self._waiting,
            uptime_s=round(time.monotonic() - self._started, 1),
        )


def _cut(text: str) -> str:
    return text if len(text) <= _LOG_CHARACTERS else text[:_LOG_CHARACTERS] + " …\n"


def _delta(text: str) -> TextDelta:
    return TextDelta(
        text=str(text),
        logprobs=list(text.logprobs) if isinstance(text, ScoredText) else [],
        tokens=text.tokens if isinstance(text, CountedText) else 0,
    )


def _done(result: object) -> Done:
    return Done(result=msgspec.Raw(_ENCODER.encode(result)))
