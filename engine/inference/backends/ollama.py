"""Models of an Ollama on this machine behind the backend protocol; `ollama:TAG` names one."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import urlsplit

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, ServiceUnreachable, UsageProblem
from engine.core.i18n import _
from engine.inference.protocol import Finish, Generated, Sampling, Scored
from engine.runs.network_guard import is_local

PREFIX = "ollama:"
DEFAULT_HOST = "http://127.0.0.1:11434"
TIMEOUT_S = 120.0
"""Until the next piece: a large model takes long to load."""


def local_host(given: str | None = None) -> str:
    """The address of the Ollama here: `given`, else `$OLLAMA_HOST`, else the default port.

    Raises UsageProblem when it is another machine: nothing leaves this one.
    """
    text = (given or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST).strip()
    parts = urlsplit(text if "//" in text else f"http://{text}")
    try:
        port = parts.port
    except ValueError as problem:
        raise UsageProblem(
            _("OLLAMA_HOST is not an address: {host}").format(host=text), hint="unset OLLAMA_HOST"
        ) from problem
    name = parts.hostname or "127.0.0.1"
    if not is_local(name):
        raise UsageProblem(
            _("OLLAMA_HOST is another machine ({host}); nothing is sent there").format(host=name),
            hint="unset OLLAMA_HOST",
        )
    # 0.0.0.0 and :: are what a server listens on, not where a client connects to.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
    shown = f"[{name}]" if ":" in name else name
    return f"{parts.scheme or 'http'}://{shown}:{port or 11434}"


class OllamaBackend:
    """One model of the Ollama at `host`; the memory is Ollama's own."""

    def __init__(self, tag: str, host: str | None = None) -> None:
        """Raises UsageProblem when `host` is not this machine."""
        import ollama

        self._tag = tag
        self._client = ollama.AsyncClient(host=local_host(host), timeout=TIMEOUT_S, trust_env=False)

    @property
    def memory_mb(self) -> float:
        return 0.0

    async def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None]:
        """Raises BadInput for a model that Ollama does not have, ServiceUnreachable when it does not answer."""
        import httpx
        import ollama

        started = time.perf_counter()
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        left, finish = sampling.max_bytes, Finish.LENGTH
        try:
            stream = await self._client.chat(
                model=self._tag,
                messages=[{"role": message.role, "content": message.content} for message in messages],
                stream=True,
                options=_options(sampling, seed),
            )
            async for part in stream:
                text = _clean(part.message.content or "")
                data = text.encode()
                if data and left > 0:
                    yield text if len(data) <= left else data[:left].decode("utf-8", "ignore")
                left -= len(data)
                if left < 0:
                    break
                if part.done:
                    finish = Finish.STOP if part.done_reason == "stop" else Finish.LENGTH
        except ollama.ResponseError as problem:
            raise self._refused(problem) from problem
        # With stream=True the client lets httpx's own errors through.
        except (ConnectionError, httpx.HTTPError) as problem:
            raise ServiceUnreachable(
                _("Ollama does not answer: {reason}").format(reason=type(problem).__name__),
                hint="ollama serve",
            ) from problem
        yield Generated(
            finish=finish,
            bytes=sampling.max_bytes - max(left, 0),
            seconds=time.perf_counter() - started,
            seed=seed,
        )

    async def loglikelihood(self, messages: Sequence[ChatMessage]) -> Scored:
        """Ollama tells none: always raises UsageProblem."""
        raise UsageProblem(_("Ollama gives no likelihoods"), hint="h2q-tui models list")

    async def close(self) -> None:
        await self._client._client.aclose()

    def _refused(self, problem: Any) -> BadInput | ServiceUnreachable:
        if problem.status_code == 404:
            return BadInput(
                _("Ollama has no model {name}").format(name=self._tag), hint=f"ollama pull {self._tag}"
            )
        return ServiceUnreachable(
            _("Ollama refused: {reason}").format(reason=problem.error), hint="ollama serve"
        )


def _options(sampling: Sampling, seed: int) -> dict[str, Any]:
    """Ollama counts tokens where we count bytes; a token has at least one, so the bytes end it."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
        "num_predict": sampling.max_bytes,
        "stop": sampling.stop,
    }


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
