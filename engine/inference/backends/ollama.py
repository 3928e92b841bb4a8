"""Models of the Ollama on this machine; `ollama:TAG` names one."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import ServiceUnreachable
from engine.core.i18n import _
from engine.inference.cancellable import iterate
from engine.inference.language_model import (
    MAX_BYTES,
    NLL,
    Finish,
    Generated,
    NLLAndEntropy,
    OnTokens,
    Prompt,
    RenderedPrompt,
    Sampling,
    Unsupported,
    require_question,
    seed_of,
)
from engine.models.chatml import MaskedTokens
from engine.models.ollama.client import (
    CHAT_TIMEOUT_S,
    connect,
    local_host,
    make_async_client,
    translated_errors,
)


class OllamaModel:
    """A `LanguageModel` that generates and embeds; Ollama keeps the weights and reports no likelihoods."""

    memory_mb = 0.0
    timeout_s = CHAT_TIMEOUT_S
    """Until the next piece of an answer."""

    def __init__(self, tag: str, host: str | None = None) -> None:
        """Raises UsageProblem when `host` is not this machine."""
        self.name = tag
        self._host = local_host(host)

    @property
    def context(self) -> int:
        self._unsupported()

    @property
    def eval_context(self) -> int:
        self._unsupported()

    def windows(self, messages: Sequence[ChatMessage], context: int) -> list[MaskedTokens]:
        self._unsupported()

    def count_tokens(self, text: str | Sequence[ChatMessage]) -> int:
        self._unsupported()

    def nll(self, windows: Sequence[MaskedTokens], *, on_tokens: OnTokens | None = None) -> list[NLL]:
        self._unsupported()

    def rolling_nll(
        self, texts: Sequence[bytes], *, window_bytes: int | None = None, on_tokens: OnTokens | None = None
    ) -> list[NLL]:
        self._unsupported()

    def nll_and_entropy(self, text: str) -> NLLAndEntropy:
        self._unsupported()

    def next_token_log_probs(self, prefix: Sequence[int]) -> list[float]:
        self._unsupported()

    def reproducible(self) -> AbstractContextManager[None]:
        """Nothing to do: Ollama has threads of its own."""
        return nullcontext()

    def _unsupported(self) -> NoReturn:
        raise Unsupported(_("Ollama gives no likelihoods"), hint="h2q-tui models list")

    def generate(
        self, messages: Prompt, sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Iterator[str | Generated]:
        """Raises BadInput for a model that Ollama does not have, ServiceUnreachable when it does not respond.

        Unsupported for log-probabilities and for a prompt without the chat template.
        """
        require_question(messages)
        if isinstance(messages, str) or sampling.logprobs is not None or not sampling.truncate:
            self._unsupported()
        yield from iterate(self._stream(messages, sampling), cancelled)

    def render_prompt(self, messages: Prompt, sampling: Sampling) -> RenderedPrompt:
        self._unsupported()

    async def _stream(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None]:
        started = time.perf_counter()
        seed = seed_of(sampling)
        max_bytes = MAX_BYTES if sampling.max_bytes is None else sampling.max_bytes
        left, finish, ended = max_bytes, Finish.LENGTH, False
        prompt_tokens, tokens, first_token_s = 0, 0, 0.0
        client = make_async_client(self._host, timeout_s=self.timeout_s)
        try:
            with translated_errors(self.name, refusal=ServiceUnreachable, hint="ollama serve"):
                stream = await client.chat(
                    model=self.name,
                    messages=[
                        {"role": message.role, "content": _without_surrogates(message.content)}
                        for message in messages
                    ],
                    stream=True,
                    options=_options(sampling, seed, max_bytes),
                    format=msgspec.json.decode(sampling.json_schema) if sampling.json_schema else None,
                )
                async for part in stream:
                    text = _without_surrogates(part.message.content or "")
                    data = text.encode()
                    first_token_s = first_token_s or time.perf_counter() - started
                    if data and left > 0:
                        yield text if len(data) <= left else data[:left].decode("utf-8", "ignore")
                    left -= len(data)
                    ended = left < 0 or bool(part.done)
                    if left < 0:
                        break
                    if part.done:
                        prompt_tokens, tokens = part.prompt_eval_count or 0, part.eval_count or 0
                        finish = Finish.STOP if part.done_reason == "stop" else Finish.LENGTH
        finally:
            await client._client.aclose()
        if not ended:
            raise ServiceUnreachable(_("Ollama ended within the answer"), hint="ollama serve")
        yield Generated(
            finish=finish,
            bytes=max_bytes - max(left, 0),
            seconds=time.perf_counter() - started,
            seed=seed,
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            first_token_s=first_token_s,
        )

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of Ollama's embedding endpoint. Raises BadInput and ServiceUnreachable as `generate`."""
        with (
            connect(self._host, timeout_s=self.timeout_s) as client,
            translated_errors(self.name, refusal=ServiceUnreachable, hint="ollama serve"),
        ):
            response = client.embed(model=self.name, input=list(map(_without_surrogates, texts)))
        if len(response.embeddings) != len(texts):
            raise ServiceUnreachable(
                _("what answers at Ollama's address is not understood"), hint="ollama --version"
            )
        return [list(vector) for vector in response.embeddings]


def _options(sampling: Sampling, seed: int, max_bytes: int) -> dict[str, Any]:
    """Ollama counts tokens where we count bytes; a token has at least one byte, so the bytes end the answer."""
    penalties = {
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_last_n": sampling.repeat_last_n,
    }
    return {
        **({"num_ctx": sampling.context} if sampling.context is not None else {}),
        **({"top_k": sampling.top_k} if sampling.top_k else {}),
        **({"min_p": sampling.min_p} if sampling.min_p else {}),
        **(penalties if sampling.penalises else {}),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
        "num_predict": max_bytes if sampling.max_tokens is None else min(max_bytes, sampling.max_tokens),
        "stop": [_without_surrogates(stop) for stop in sampling.stop],
    }


def _without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
