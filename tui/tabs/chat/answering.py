"""The answer in progress: one model after the other generates, the text is painted at most ten times a second."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from textual.worker import Worker

from engine.chats.record import FAILED, STOPPED, ChatExchange, ChatRecord
from engine.core.chat import ChatMessage
from engine.core.errors import H2QError, error_text
from engine.inference.client import InferenceClient
from engine.inference.language_model import Sampling

PAINT_SHARE = 4
"""Painting rests this many times as long as it took, so that a huge answer leaves the keys their time."""


class AnswerHost(Protocol):
    """The Chat tab, as the answer in progress sees it."""

    client: InferenceClient

    def run_worker(
        self, work: Coroutine[Any, Any, None], *, group: str, exclusive: bool, exit_on_error: bool
    ) -> Worker[None]:
        """Runs a coroutine beside the app."""

    def models_ended(self, attempt: int) -> None:
        """The models of an attempt have ended; called in the worker."""

    def paint(self, exchange: ChatExchange, version: int, text: str) -> None:
        """Draws text that has come."""

    def answer_closed(self, exchange: ChatExchange) -> None:
        """The answers of an exchange have ended, whatever the reason."""


class Answering:
    """At most one exchange is answered at a time; every way out ends it."""

    def __init__(self, host: AnswerHost) -> None:
        self.host = host
        self.attempt = 0
        """Number of answers that were begun."""
        self._exchange: ChatExchange | None = None
        self._versions: list[int] = []
        self._worker: Worker[None] | None = None
        self._unpainted: dict[int, str] = {}
        self._next_paint = 0.0
        self._started_at = 0.0
        self._first: tuple[float, int] | None = None
        """When the first text of the answer in progress came, and its tokens."""
        self._latest = (0.0, 0)
        """The same for its latest text."""

    @property
    def is_on(self) -> bool:
        return self._exchange is not None

    @property
    def seconds(self) -> float | None:
        """Since the answer was begun; None when there is none in progress."""
        return time.monotonic() - self._started_at if self.is_on else None

    @property
    def tokens_per_s(self) -> float:
        """Speed of the answer in progress after its first text, as `Generated.tokens_per_s`; 0 while unknown."""
        if not self.is_on or self._first is None:
            return 0.0
        passed, tokens = (now - first for now, first in zip(self._latest, self._first, strict=True))
        return tokens / passed if passed > 0 and tokens > 0 else 0.0

    def begin(self, record: ChatRecord, exchange: ChatExchange, models: Sequence[str], reason: str) -> None:
        """A new version of the answer, or one of each of two models side by side."""
        first = len(exchange.answers)
        if len(models) > 1:
            exchange.begin_pair(models, reason=reason)
        else:
            exchange.begin(models[0], reason=reason)
        self._exchange, self._versions = exchange, list(range(first, len(exchange.answers)))
        self._started_at, self._unpainted, self._next_paint = time.monotonic(), {}, 0.0
        self._first = None
        self.attempt += 1
        work = self._stream(
            exchange, self._versions, record.messages(exchange), record.sampling, self.attempt
        )
        self._worker = self.host.run_worker(work, group="chat:answer", exclusive=True, exit_on_error=False)

    async def _stream(
        self,
        exchange: ChatExchange,
        versions: Sequence[int],
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        attempt: int,
    ) -> None:
        client = self.host.client
        for version in versions:
            answer, self._first = exchange.answers[version], None
            stream = client.generate(answer.model, messages, sampling)
            try:
                async for text in stream:
                    answer.text += text
                    self._latest = time.monotonic(), client.tokens
                    self._first = self._first or self._latest
                    self._unpainted[version] = self._unpainted.get(version, "") + text
                if client.last is not None:
                    answer.end(client.last)
                answer.finish = answer.finish or STOPPED
            except (H2QError, OSError) as problem:
                answer.problem, answer.finish = error_text(problem), FAILED
            finally:
                await stream.aclose()
        self.host.models_ended(attempt)

    def end(self) -> None:
        """Ends the answer in progress, if there is one; what has come of it stays."""
        exchange, worker = self._exchange, self._worker
        if exchange is None:
            return
        if worker is not None:
            worker.cancel()
        for version in self._versions:
            exchange.answers[version].finish = exchange.answers[version].finish or STOPPED
        self._exchange, self._worker, self._unpainted = None, None, {}
        self.host.answer_closed(exchange)

    def flush(self) -> None:
        """Paints the text that has arrived since the last time, unless painting took long just now."""
        exchange, now = self._exchange, time.monotonic()
        if exchange is None or now < self._next_paint:
            return
        unpainted, self._unpainted = self._unpainted, {}
        for version, text in unpainted.items():
            self.host.paint(exchange, version, text)
        self._next_paint = now + PAINT_SHARE * (time.monotonic() - now)
