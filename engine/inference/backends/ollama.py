"""Models of an Ollama on this machine behind the backend protocol; `ollama:TAG` names one."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from engine.core.chat import ChatMessage
from engine.core.errors import ServiceUnreachable, UsageProblem
from engine.core.i18n import _
from engine.inference.protocol import Finish, Generated, Sampling, Scored
from engine.models.ollama.client import make_async_client, translated_errors


class OllamaBackend:
    """One model of the Ollama at `host`; the memory is Ollama's own."""

    def __init__(self, tag: str, host: str | None = None) -> None:
        """Raises UsageProblem when `host` is not this machine."""
        self._tag = tag
        self._client = make_async_client(host)

    @property
    def memory_mb(self) -> float:
        return 0.0

    async def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None]:
        """Raises BadInput for a model that Ollama does not have, ServiceUnreachable when it does not answer."""
        started = time.perf_counter()
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        left, finish = sampling.max_bytes, Finish.LENGTH
        with translated_errors(self._tag, refusal=ServiceUnreachable, hint="ollama serve"):
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
