"""The native model in torch with a key-value cache: one byte at a time, each answer in a thread of its own."""

from __future__ import annotations

import asyncio
import math
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from engine.core.chat import ChatMessage
from engine.inference.protocol import Finish, Generated, Sampling, Scored, whole
from engine.inference.sampling import STOP_TOKENS, Sampler, StopStrings
from engine.models import chatml
from engine.models.native_format import load_model
from engine.models.tokenizer import Utf8Stream
from engine.models.transformer import KVCache, Transformer


class NativeModel:
    """A native model that answers; blocking, for one caller at a time."""

    def __init__(self, model: Transformer) -> None:
        self.model = model.eval()

    @property
    def memory_mb(self) -> float:
        return sum(p.numel() * p.element_size() for p in self.model.parameters()) / 2**20

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        cancelled: threading.Event | None = None,
    ) -> Generator[str, None, Generated]:
        """Yields whole characters; returns how it went. Ends within one byte after `cancelled` is set."""
        started = time.perf_counter()
        context = self.model.config.context
        prompt, dropped = fit_prompt(messages, context, sampling.max_bytes)
        seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
        room = min(sampling.max_bytes, context - len(prompt))
        cache = self._cache(len(prompt) + max(room, 1))
        sampler = Sampler(sampling, self.model.config.vocab, seed)
        text, stops = Utf8Stream(), StopStrings(sampling.stop)
        finish, count, tokens = Finish.LENGTH, 0, prompt
        while count < room and not (cancelled is not None and cancelled.is_set()):
            token = sampler.draw(self._next(tokens, cache))
            if token in STOP_TOKENS:
                finish = Finish.STOP
                break
            count += 1
            tokens = [token]
            if piece := stops.push(text.push(token)):
                yield piece
            if stops.found:
                finish = Finish.STOP_STRING
                break
        if piece := stops.flush():
            yield piece
        return Generated(
            finish=finish,
            bytes=count,
            seconds=time.perf_counter() - started,
            dropped_turns=dropped,
            seed=seed,
        )

    def answer(self, messages: Sequence[ChatMessage], sampling: Sampling) -> tuple[str, Generated]:
        """The whole text at once."""
        return whole(self.generate(messages, sampling))

    @torch.inference_mode()
    def loglikelihood(self, messages: Sequence[ChatMessage]) -> Scored:
        """Of the assistant turns of a conversation, cut into windows as in training."""
        turns = [ChatMessage(role=m.role, content=m.content) for m in messages]
        total, count = 0.0, 0
        for window in chatml.windows(turns, self.model.config.context):
            ids = torch.tensor([window.ids])
            logs = self.model(ids[:, :-1])[0].float().log_softmax(dim=-1)
            scored = torch.tensor(window.loss_mask[1:])
            total += float(logs.gather(1, ids[0, 1:, None])[:, 0][scored].sum(dtype=torch.float64))
            count += int(scored.sum())
        return Scored(loglikelihood=total if math.isfinite(total) else None, bytes=count)

    @torch.inference_mode()
    def _cache(self, capacity: int) -> KVCache:
        return KVCache(self.model.config, capacity=capacity, like=self.model.lm_head.weight)

    @torch.inference_mode()
    def _next(self, tokens: Sequence[int], cache: KVCache) -> Tensor:
        """Logits `(vocab,)` after `tokens`, which follow what the cache holds."""
        hidden = self.model.model(torch.tensor([tokens]), cache)
        logits: Tensor = self.model.lm_head(hidden[0, -1])
        return logits


def fit_prompt(messages: Sequence[ChatMessage], context: int, answer_bytes: int) -> tuple[list[int], int]:
    """(ids, dropped turns): the prompt with room for the answer, at most half of the context.

    The oldest turns go first and system turns stay; a last turn that is too long alone loses its beginning.
    """
    space = context - min(answer_bytes, context // 2)
    turns = [ChatMessage(role=m.role, content=m.content) for m in messages]
    lengths = [len(chatml.render_message(turn).ids) for turn in turns]
    opening = len(chatml.render([], add_generation_prompt=True).ids)
    total = sum(lengths) + opening
    keep = [True] * len(turns)
    for index, turn in enumerate(turns[:-1]):
        if total <= space:
            break
        if turn.role != "system":
            keep[index] = False
            total -= lengths[index]
    kept = [turn for turn, stays in zip(turns, keep, strict=True) if stays]
    ids = chatml.render(kept, add_generation_prompt=True).ids
    if len(ids) > space and kept:
        # A system turn may take a quarter; the rest is the end of the last turn.
        head = [_shorten(turn, space // 4, end=False) for turn in kept[:-1]][:1]
        used = len(chatml.render(head).ids) + opening
        ids = chatml.render(
            [*head, _shorten(kept[-1], space - used, end=True)], add_generation_prompt=True
        ).ids
    return ids, keep.count(False)


def _shorten(turn: ChatMessage, tokens: int, *, end: bool) -> ChatMessage:
    """`turn` in at most `tokens` tokens: the end or the beginning of its content, in whole characters."""
    frame = len(chatml.render_message(ChatMessage(role=turn.role, content="")).ids)
    room = max(tokens - frame, 0)
    data = turn.content.encode("utf-8", "replace")
    if len(data) <= room:
        return turn
    part = data[len(data) - room :] if end else data[:room]
    return ChatMessage(role=turn.role, content=part.decode("utf-8", "ignore"))


class Answering(Protocol):
    """A model in this process; blocking, for one caller at a time."""

    @property
    def memory_mb(self) -> float: ...

    def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling, cancelled: threading.Event | None = None
    ) -> Generator[str, None, Generated]: ...

    def answer(self, messages: Sequence[ChatMessage], sampling: Sampling) -> tuple[str, Generated]: ...

    def loglikelihood(self, messages: Sequence[ChatMessage]) -> Scored: ...


def load_native(folder: Path) -> NativeModel:
    """Blocking. Raises BadInput when there is no whole model in `folder`."""
    # A byte at a time gives a second thread nothing to do, and beside a training run it only waits.
    torch.set_num_threads(1)
    model, _card = load_model(folder)
    return NativeModel(model)


class TorchBackend:
    """A model of this process behind the backend protocol."""

    def __init__(self, model: Path | Answering) -> None:
        """Loads a native model from its folder, or takes one that is loaded. Raises BadInput as `load_native`."""
        self._model = load_native(model) if isinstance(model, Path) else model

    @property
    def memory_mb(self) -> float:
        return self._model.memory_mb

    async def generate(
        self, messages: Sequence[ChatMessage], sampling: Sampling
    ) -> AsyncGenerator[str | Generated, None]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | Generated | Exception] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: str | Generated | Exception) -> None:
            # The loop may be closing while the last piece is on its way.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            try:
                stream = self._model.generate(messages, sampling, cancelled)
                while True:
                    try:
                        put(next(stream))
                    except StopIteration as end:
                        put(end.value)
                        return
            except Exception as problem:
                put(problem)

        thread = loop.run_in_executor(None, work)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, Generated):
                    return
        finally:
            cancelled.set()
            await asyncio.shield(thread)

    async def loglikelihood(self, messages: Sequence[ChatMessage]) -> Scored:
        return await asyncio.to_thread(self._model.loglikelihood, messages)

    async def close(self) -> None:
        """Nothing to do: the memory goes with the last reference."""
