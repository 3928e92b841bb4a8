"""A llama.cpp process from the outside: starting it, requests with its key, streamed answers, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import tempfile
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil

from engine.core.errors import BadInput, RunFailed, ServiceUnreachable
from engine.core.i18n import _
from engine.core.openmp import SLEEP_SOON
from engine.inference.llama.parameters import LlamaParameters
from engine.inference.llama.process import LlamaStart
from engine.runs.own_process import engine_command, engine_environment

READ_TIMEOUT_S = 300.0
"""Until the next piece of an answer: a long prompt on a busy machine takes long to read."""
_LOG_BYTES = 1 << 16
_REASON = re.compile(r"^[\d.]+ E (.+)$", re.MULTILINE)
"""A line of llama.cpp's log at the level of errors."""
_FAULT = re.compile(r"^.*GGML_ASSERT.*$|^.*error: .*$", re.MULTILINE)
"""What llama.cpp prints before it aborts."""
_ENVIRONMENT = {
    # Waiting threads that spin for long make llama.cpp ten times slower next to other work.
    **SLEEP_SOON,
    # Else an abort starts a debugger on the process.
    "GGML_NO_BACKTRACE": "1",
}


class LlamaMissing(ServiceUnreachable):
    """llama.cpp is not installed here, or a library that it needs is not."""


class LlamaServer:
    """One model in a llama.cpp process of its own. The process ends with `close`, or when this object is gone."""

    def __init__(
        self,
        model: Path,
        *,
        adapters: Sequence[Path] = (),
        context: int,
        threads: int,
        parallel: int = 1,
        cache_mb: int = 0,
        embedding: bool = False,
    ) -> None:
        """Blocks until the model is loaded. Raises BadInput when llama.cpp rejects a file, UsageProblem, LlamaMissing."""
        self.parameters = LlamaParameters(
            model=str(model),
            adapters=[str(adapter) for adapter in adapters],
            context=context,
            threads=threads,
            parallel=parallel,
            cache_mb=cache_mb,
            embedding=embedding,
            api_key=secrets.token_urlsafe(32),
        )
        self.parameters.check()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = _spawn(self._log)
        self._end = weakref.finalize(self, _stop, self._process, self._log)
        started = _handshake(self._process, self.parameters)
        if started.missing:
            self.close()
            raise LlamaMissing(
                _("llama.cpp cannot be loaded: {reason}").format(reason=started.missing), hint="h2q-tui check"
            )
        if not started.address:
            reason = _reason(self._log, model) or started.error or self._ending()
            self.close()
            raise BadInput(_("llama.cpp rejected the file ({reason})").format(reason=reason), path=model)
        self.address = started.address

    def close(self) -> None:
        """Ends the process. A second call does nothing."""
        self._end()

    @property
    def alive(self) -> bool:
        return self._end.alive and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory_mb(self) -> float:
        """Resident memory of the process; 0 when it is gone."""
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss / 2**20)
        except psutil.Error:
            return 0.0

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer of an endpoint. Raises BadInput, ServiceUnreachable as `stream`."""
        import httpx

        async with self._client() as client:
            try:
                response = await client.post(path, json=body)
            except httpx.HTTPError as problem:
                raise self._gone(problem) from problem
            if response.status_code != httpx.codes.OK:
                raise _refused(response.text)
            return response.json()

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer. Closing the iterator ends the work in llama.cpp.

        Raises BadInput for a request that llama.cpp refuses, RunFailed for an error within the answer,
        ServiceUnreachable when the process is gone.
        """
        import httpx

        async with self._client() as client:
            try:
                async with client.stream("POST", path, json={**body, "stream": True}) as response:
                    if response.status_code != httpx.codes.OK:
                        raise _refused((await response.aread()).decode("utf-8", "replace"))
                    async for line in _lines(response.aiter_raw()):
                        kind, _colon, data = line.partition(b": ")
                        if kind not in (b"data", b"error") or data == b"[DONE]":
                            continue
                        event: dict[str, Any] = msgspec.json.decode(data)
                        if kind == b"error" or "error" in event:
                            raise RunFailed(
                                _("llama.cpp failed ({reason})").format(
                                    reason=_message(event.get("error", event))
                                )
                            )
                        yield event
            except httpx.HTTPError as problem:
                raise self._gone(problem) from problem

    def _client(self) -> Any:
        import httpx

        return httpx.AsyncClient(
            base_url=self.address,
            headers={
                "Authorization": f"Bearer {self.parameters.api_key}",
                "Accept-Encoding": "identity",
            },
            timeout=httpx.Timeout(10.0, read=READ_TIMEOUT_S),
            # A proxy of the environment is for other machines.
            trust_env=False,
            # Plain HTTP: certificates, which take 20 ms to load, are for nothing here.
            verify=False,  # noqa: S501
        )

    def _gone(self, problem: Exception) -> ServiceUnreachable:
        """Why a request got no answer: the end of the process, else the connection's own error."""
        reason = self._ending() or type(problem).__name__
        return ServiceUnreachable(
            _("llama.cpp does not answer: {reason}").format(reason=reason), hint="h2q-tui check"
        )

    def _ending(self) -> str:
        """How the process ended; "" while it runs."""
        try:
            # Its connections close before it can be waited for.
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return ""
        found = _FAULT.findall(_tail(self._log))
        if found:
            return str(found[-1]).strip()[:200]
        return (
            _("its process was ended by signal {number}").format(number=-code)
            if code < 0
            else _("its process ended with exit code {code}").format(code=code)
        )


async def _lines(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a stream, without their ends. httpx's own reader decodes and looks for every kind of line end."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
    if rest:
        yield rest


def _spawn(log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*engine_command(), "llama"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**engine_environment(), **_ENVIRONMENT},
            # Ctrl-C in the terminal is for the program that started it.
            start_new_session=True,
        )
    except OSError as problem:
        raise ServiceUnreachable(
            _("llama.cpp cannot be started: {reason}").format(reason=problem.strerror), hint="h2q-tui check"
        ) from problem


def _handshake(process: subprocess.Popen[bytes], parameters: LlamaParameters) -> LlamaStart:
    """Sends the parameters and waits until the model is loaded."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(parameters) + b"\n")
        process.stdin.flush()
    line = process.stdout.readline()
    return msgspec.json.decode(line, type=LlamaStart) if line else LlamaStart()


def _stop(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    log.close()


def _reason(log: IO[bytes], model: Path) -> str:
    """llama.cpp gives its reason on stderr only; its exception says the same for every cause. "" without one."""
    found = _REASON.findall(_tail(log))
    return found[0].strip()[:200].replace(str(model), model.name) if found else ""


def _tail(log: IO[bytes]) -> str:
    # The process writes where this descriptor stands, which must not move.
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), _LOG_BYTES, max(0, size - _LOG_BYTES)).decode("utf-8", "replace")


def _refused(text: str) -> BadInput:
    try:
        reason = _message(msgspec.json.decode(text).get("error"))
    except (msgspec.DecodeError, AttributeError):
        reason = text[:200]
    return BadInput(_("llama.cpp refused the request ({reason})").format(reason=reason))


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:200]
