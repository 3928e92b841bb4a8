"""The loaded models of the service: at most two, the least recently used one is unloaded first."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import RunFailed
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.inference.language_model import (
    NLL,
    Generated,
    LanguageModel,
    Prompt,
    RenderedPrompt,
    Sampling,
    StreamingModel,
    ToolModel,
    Unsupported,
    conversation_nll,
    joined,
    too_long,
)
from engine.inference.llama.parameters import NoMemory
from engine.inference.loader import open_language_model
from engine.inference.protocol import LoadedModel
from engine.machine.process_memory import MB, tree_memory
from engine.models.card import read_card
from engine.models.ollama.store import find_manifest
from engine.models.resolve import find_place, split_adapter

LIMIT = 2
GAP_S = 0.02
"""Seconds between two deltas of an answer at least: more often than a screen shows."""
IDLE_S = 600.0
"""Seconds without a request after which a model is unloaded."""


class _Deltas(asyncio.Queue[str | Generated | Exception]):
    """The deltas of an answer, then its statistics or why it failed."""

    def __init__(self) -> None:
        super().__init__()
        self._complete = asyncio.Event()

    def put_nowait(self, item: str | Generated | Exception) -> None:
        super().put_nowait(item)
        if not isinstance(item, str):
            self._complete.set()

    async def fill(self, stream: AsyncGenerator[str | Generated, None]) -> None:
        """Reads the whole stream."""
        try:
            async with aclosing(stream):
                async for item in stream:
                    self.put_nowait(item)
        except Exception as problem:
            self.put_nowait(problem)

    async def wait_until(self, due: float) -> None:
        """Waits for a time of the monotonic clock, or for the end of the answer."""
        left_s = due - time.monotonic()
        if left_s > 0 and not self._complete.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._complete.wait(), left_s)


class AsyncLanguageModel:
    """A `LanguageModel` for an event loop: its blocking methods run in a thread."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    @property
    def memory_mb(self) -> float:
        return self._model.memory_mb

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together; 0 for a model of Ollama, which does not say."""
        try:
            return self._model.context
        except Unsupported:
            return 0

    async def render_prompt(self, messages: Prompt, sampling: Sampling) -> RenderedPrompt:
        return await asyncio.to_thread(self._model.render_prompt, messages, sampling)

    async def tool_prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> RenderedPrompt:
        """As `ToolModel.tool_prompt`, for any model."""
        if not isinstance(self._model, ToolModel):
            return RenderedPrompt(text="", tokens=0)
        return await asyncio.to_thread(self._model.tool_prompt, turns, tools)

    async def embed(self, texts: Sequence[str], *, truncate: bool) -> tuple[list[list[float]], int]:
        """(vectors, tokens of the texts). Raises BadInput for a text that is too long and may not be truncated."""

        def work() -> tuple[list[list[float]], int]:
            context = self.context
            tokens = [self._model.count_tokens(text) for text in texts] if context else []
            longest = max(tokens, default=0)
            if not truncate and longest > context:
                raise too_long(longest, context)
            vectors = self._model.embed(texts)
            if not all(math.isfinite(value) for vector in vectors for value in vector):
                raise RunFailed(_("the model gives no numbers (NaN)"), hint="h2q-tui rollback")
            return vectors, sum(min(count, context) for count in tokens)

        return await asyncio.to_thread(work)

    async def generate(self, messages: Prompt, sampling: Sampling) -> AsyncGenerator[str | Generated, None]:
        """As `LanguageModel.generate`; deltas that come within `GAP_S` are one. Closing the generator ends the work."""
        queue = _Deltas()
        async with self._filling(queue, messages, sampling):
            due = 0.0
            while True:
                item = await queue.get()
                if isinstance(item, str):
                    # Each item that goes out costs as much as a token of a small model.
                    await queue.wait_until(due)
                    texts = [item]
                    while not queue.empty():
                        item = queue.get_nowait()
                        if not isinstance(item, str):
                            break
                        texts.append(item)
                    yield joined(texts)
                    due = time.monotonic() + GAP_S
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, Generated):
                    yield item
                    return

    @asynccontextmanager
    async def _filling(self, queue: _Deltas, messages: Prompt, sampling: Sampling) -> AsyncIterator[None]:
        """Within the block the answer comes into the queue; its end ends the work and waits for that."""
        if isinstance(self._model, StreamingModel):
            stream = await asyncio.to_thread(self._model.open_stream, messages, sampling)
            if stream is not None:
                pump = asyncio.create_task(queue.fill(stream))
                try:
                    yield
                finally:
                    pump.cancel()
                    await asyncio.gather(pump, return_exceptions=True)
                return
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def put(item: str | Generated | Exception) -> None:
            # The loop may be closing while the last item is on its way.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            try:
                for item in self._model.generate(messages, sampling, cancelled):
                    put(item)
            except Exception as problem:
                put(problem)

        thread = loop.run_in_executor(None, work)
        try:
            yield
        finally:
            cancelled.set()
            await asyncio.shield(thread)

    async def conversation_nll(self, messages: Sequence[ChatMessage]) -> NLL:
        return await asyncio.to_thread(conversation_nll, self._model, messages)


@dataclass
class CachedModel:
    """A loaded model. `users` counts the requests that are using it."""

    name: str
    key: str
    model: AsyncLanguageModel
    used_at: float = field(default_factory=time.monotonic)
    users: int = 0
    keep_s: float = IDLE_S
    """Idle seconds after which it is unloaded; negative: never."""

    def expired(self, now: float) -> bool:
        """Whether it has been idle for long enough to be unloaded."""
        return self.users == 0 and 0 <= self.keep_s <= now - self.used_at


class ModelCache:
    """Loads a model on first use; a model in use is freed when its last request ends."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._cached: dict[str, CachedModel] = {}
        self._loading = asyncio.Lock()

    @asynccontextmanager
    async def use(self, name: str, keep_s: float | None = None) -> AsyncIterator[AsyncLanguageModel]:
        """The model `name`, loaded. Raises BadInput for an unknown or broken one.

        `keep_s` is how long it stays loaded without a request, from here on; 0: no longer than this block.
        """
        cached = await self._get(name)
        cached.users += 1
        if keep_s is not None:
            cached.keep_s = keep_s
        try:
            yield cached.model
        finally:
            cached.users -= 1
            cached.used_at = time.monotonic()
            self.unload_idle()

    def unload(self, name: str | None = None) -> bool:
        """Unloads one model, or all; whether there was one."""
        chosen = [cached for cached in self._cached.values() if name is None or cached.name == name]
        for cached in chosen:
            del self._cached[cached.key]
        return bool(chosen)

    def unload_idle(self) -> None:
        """Unloads the models that had no request for as long as they are kept."""
        now = time.monotonic()
        for cached in list(self._cached.values()):
            if cached.expired(now):
                del self._cached[cached.key]

    @property
    def keeps_for_ever(self) -> bool:
        """Whether a loaded model is never unloaded for being idle."""
        return any(cached.keep_s < 0 for cached in self._cached.values())

    def status(self) -> list[LoadedModel]:
        """The loaded models, the most recently used one first."""
        now = time.monotonic()
        return [
            LoadedModel(
                name=cached.name,
                memory_mb=round(cached.model.memory_mb, 1),
                idle_s=0.0 if cached.users else round(now - cached.used_at, 1),
                keep_s=cached.keep_s,
                context=cached.model.context,
            )
            for cached in sorted(self._cached.values(), key=lambda cached: -cached.used_at)
        ]

    async def _get(self, name: str) -> CachedModel:
        async with self._loading:
            key = self._key(name)
            cached = self._cached.get(key)
            if cached is None:
                while len(self._cached) >= LIMIT:
                    oldest = min(self._cached.values(), key=lambda cached: (cached.users > 0, cached.used_at))
                    del self._cached[oldest.key]
                model = AsyncLanguageModel(await self._open(name))
                cached = self._cached[key] = CachedModel(name=name, key=key, model=model)
            cached.used_at = time.monotonic()
            return cached

    async def _open(self, name: str) -> LanguageModel:
        """Opens a model beside the loaded ones, or in place of idle ones where the memory budget holds no more."""
        while True:
            loaded_mb = tree_memory() / MB if self._cached else 0.0
            try:
                # The service accepts connections before the first model makes it import torch.
                return await asyncio.to_thread(
                    open_language_model, self._ws, name, serving=True, loaded_mb=loaded_mb
                )
            except NoMemory:
                if not self._unload_oldest_idle():
                    raise

    def _unload_oldest_idle(self) -> bool:
        idle = [cached for cached in self._cached.values() if cached.users == 0]
        if not idle:
            return False
        del self._cached[min(idle, key=lambda cached: cached.used_at).key]
        return True

    def _key(self, name: str) -> str:
        """Identifies a model by its place, its weights and the base named with an adapter."""
        place = find_place(self._ws, name)
        weights = ""
        if place.tag and (manifest := find_manifest(self._ws, place.tag)) is not None:
            with suppress(OSError):
                weights = str(manifest.stat().st_mtime_ns)
        if place.folder is not None:
            # Loading reports what is wrong with it.
            with suppress(OSError, msgspec.DecodeError):
                weights = read_card(place.folder).weights_sha256
            with suppress(OSError):
                weights = weights or str(place.folder.stat().st_mtime_ns)
        return f"{place.reference} {weights} {split_adapter(name)[1]}"
