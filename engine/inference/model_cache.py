"""The models that the service holds: two at most, the one used longest ago goes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine.core.paths import Workspace
from engine.inference.backends.ollama import OllamaBackend
from engine.inference.protocol import Backend, LoadedModel
from engine.models.base_models import find_base
from engine.models.card import read_card
from engine.models.ollama.client import MODEL_PREFIX
from engine.models.resolve import ModelKind, kind_of, resolve_model, split_adapter

if TYPE_CHECKING:
    from engine.inference.backends.hf import HFModel

LIMIT = 2
IDLE_S = 600.0
"""A model that nobody asked for ten minutes is freed."""


@dataclass
class Held:
    """A loaded model. `users` counts the requests that work with it now."""

    name: str
    key: str
    backend: Backend
    used_at: float = field(default_factory=time.monotonic)
    users: int = 0


class LoadedModels:
    """Loads on first use and frees by age; a model at work is freed when its last request ends."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._held: dict[str, Held] = {}
        self._loading = asyncio.Lock()

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Backend]:
        """The model `name`, loaded. Raises BadInput for an unknown or broken one."""
        held = await self._get(name)
        held.users += 1
        try:
            yield held.backend
        finally:
            held.users -= 1
            held.used_at = time.monotonic()

    async def free(self, name: str | None = None) -> bool:
        """Lets go of one model, or of all; True when there was one."""
        chosen = [held for held in self._held.values() if name is None or held.name == name]
        for held in chosen:
            del self._held[held.key]
            await held.backend.close()
        return bool(chosen)

    async def free_idle(self) -> None:
        now = time.monotonic()
        for held in list(self._held.values()):
            if held.users == 0 and now - held.used_at >= IDLE_S:
                del self._held[held.key]
                await held.backend.close()

    def status(self) -> list[LoadedModel]:
        now = time.monotonic()
        return [
            LoadedModel(
                name=held.name,
                memory_mb=round(held.backend.memory_mb, 1),
                idle_s=0.0 if held.users else round(now - held.used_at, 1),
            )
            for held in sorted(self._held.values(), key=lambda held: -held.used_at)
        ]

    async def _get(self, name: str) -> Held:
        async with self._loading:
            key, folder = self._key(name)
            held = self._held.get(key)
            if held is None:
                while len(self._held) >= LIMIT:
                    oldest = min(self._held.values(), key=lambda held: (held.users > 0, held.used_at))
                    del self._held[oldest.key]
                    await oldest.backend.close()
                held = Held(name=name, key=key, backend=await self._load(name, folder))
                self._held[key] = held
            held.used_at = time.monotonic()
            return held

    def _key(self, name: str) -> tuple[str, Path | None]:
        """What tells models apart: a folder whose weights were replaced is another model."""
        if name.startswith(MODEL_PREFIX):
            return name, None
        folder = resolve_model(self._ws, name)
        try:
            weights = read_card(folder).weights_sha256
        except (OSError, msgspec.DecodeError):
            # Loading it says what is wrong.
            weights = ""
        # An adapter may stand on another base when that is named beside it.
        return f"{folder} {weights} {split_adapter(name)[1]}", folder

    async def _load(self, name: str, folder: Path | None) -> Backend:
        if folder is None:
            return OllamaBackend(name.removeprefix(MODEL_PREFIX))
        # torch is loaded with the first model, so that the service answers before.
        from engine.inference.backends.native import TorchBackend

        if kind_of(folder) is ModelKind.NATIVE:
            return await asyncio.to_thread(TorchBackend, folder)
        return TorchBackend(await asyncio.to_thread(self._load_hf, name, folder))

    def _load_hf(self, name: str, folder: Path) -> HFModel:
        from engine.inference.backends.hf import HFModel

        named = split_adapter(name)[1]
        base = find_base(self._ws, named or str(folder))
        return HFModel.load(replace(base, adapter=folder) if named else base)
