"""The models that are served, by the names that programs know them by.

A client names a model of this list and nothing else: a name is never looked up as a path.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.http.refused import bad_request
from engine.models.catalog import ListedModel, list_bases, trained_models
from engine.models.ollama.client import MODEL_PREFIX
from engine.models.ollama.layout import full_tag
from engine.models.ollama.model_store import ModelStore, StoredModel
from engine.models.registry import in_use
from engine.models.resolve import ModelKind, ModelOrigin
from engine.serving.errors import model_not_found

TAGGED = (ModelOrigin.SERVER, ModelOrigin.OLLAMA)
"""Origins of models whose names are tags."""
PERSONAL = "personal"
"""Another name of the model in use, whichever that is."""
FRESH_S = 2.0
"""Seconds for which a list of the models is used again."""


@dataclass(frozen=True)
class ApiModel:
    """A model with its name in this server."""

    tag: str
    """`NAME:TAG`."""
    reference: str
    """What the inference service finds it by."""
    listed: ListedModel
    base: ListedModel | None = None
    """The base of an adapter, where it is listed."""
    in_use: bool = False
    stored: StoredModel | None = None
    """Of a model that was created for this server."""

    @property
    def parameters_set(self) -> dict[str, Any]:
        """Options that belong to the model."""
        return self.stored.parameters if self.stored is not None else {}

    @property
    def family(self) -> str:
        """The architecture, that of the base for an adapter."""
        if self.listed.architecture:
            return self.listed.architecture
        if self.base is not None and self.base.architecture:
            return self.base.architecture
        return "qwen3" if self.listed.kind is ModelKind.NATIVE else ""

    @property
    def format(self) -> str:
        """ "gguf" or "safetensors"."""
        shown = self.base or self.listed
        return "gguf" if shown.kind is ModelKind.GGUF else "safetensors"

    @property
    def parameters(self) -> int:
        """Number of weights, those of the base included."""
        own = self.listed.card.parameters if self.listed.card is not None else self.listed.parameters
        return own + (self.base.parameters if self.base is not None else 0)

    @property
    def quantization(self) -> str:
        """Format of the weights; "" when unknown."""
        shown = self.base or self.listed
        return shown.weight_format or ("F32" if shown.kind is ModelKind.NATIVE else "")

    @property
    def bytes(self) -> int:
        """Of the weights on disk, those of the base included."""
        if self.stored is not None:
            return self.stored.size
        return self.listed.bytes + (self.base.bytes if self.base is not None else 0)

    @property
    def modified_at(self) -> str:
        """RFC 3339, UTC."""
        card = self.listed.card
        seconds = card.created_at if card is not None else _changed(self.listed.path)
        seconds = self.stored.modified_at if self.stored is not None else seconds
        return datetime.fromtimestamp(max(seconds, 0.0), UTC).isoformat().replace("+00:00", "Z")

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that change with the model."""
        if self.stored is not None:
            return self.stored.digest
        card = self.listed.card
        seen = card.weights_sha256 if card is not None else ""
        seen = seen or f"{self.listed.path} {self.listed.bytes} {_changed(self.listed.path)}"
        return sha256(f"{self.reference} {seen}".encode()).hexdigest()


class ApiModels:
    """The list of one workspace, read again when it is older than `FRESH_S`."""

    def __init__(self, ws: Workspace) -> None:
        self._ws = ws
        self._models: dict[str, ApiModel] = {}
        self._read_at = -FRESH_S
        self._reading = asyncio.Lock()
        self._renewal: asyncio.Future[Any] | None = None

    async def all(self) -> list[ApiModel]:
        """Every served model, the workspace's own first."""
        return list((await self._current()).values())

    async def find(self, name: str) -> ApiModel:
        """The model of a name, with or without `:latest`. Raises RequestRefused."""
        if not name:
            raise bad_request("model is required")
        wanted = full_tag(name)
        for fresh in (False, True):
            # A known name is answered from the list there is, which is read again meanwhile: reading takes a while.
            models = await self._current(fresh=True) if fresh or not self._models else self._models
            found = models.get(wanted) or next(
                (model for tag, model in models.items() if tag.lower() == wanted.lower()), None
            )
            if found is not None:
                if self._renewal is None or self._renewal.done():
                    self._renewal = asyncio.ensure_future(self._current())
                return found
        raise model_not_found(name)

    def forget(self) -> None:
        """Reads the list again at the next use."""
        self._read_at = -FRESH_S
        self._models = {}

    async def _current(self, *, fresh: bool = False) -> dict[str, ApiModel]:
        async with self._reading:
            # A list that was read while a request waited is as good as one of its own.
            if time.monotonic() - self._read_at >= (FRESH_S / 20 if fresh else FRESH_S):
                self._models = await asyncio.to_thread(_read, self._ws)
                self._read_at = time.monotonic()
            return self._models


def _read(ws: Workspace) -> dict[str, ApiModel]:
    bases = [base for base in list_bases(ws) if not base.problem]
    found = {**{base.path: base for base in bases if base.path}, **{base.name: base for base in bases}}
    try:
        used = in_use(ws)
    except BadInput:
        used = None
    stored = {model.tag: model for model in ModelStore(ws).tags()}
    models: dict[str, ApiModel] = {}
    for listed in [*trained_models(ws), *bases]:
        card = listed.card
        base = found.get(card.base_path) if card is not None and card.base_path else None
        tag = full_tag(listed.name)
        reference = MODEL_PREFIX + listed.name if listed.origin in TAGGED else listed.name
        made = stored.get(tag) if listed.origin is ModelOrigin.SERVER else None
        own = used is not None and used in (listed.name if card is not None else "", made and made.card_name)
        models.setdefault(tag, ApiModel(tag, reference, listed, base, own, made))
    inside = next((model for model in models.values() if model.in_use), None)
    if inside is not None and full_tag(PERSONAL) not in models:
        personal = replace(inside, tag=full_tag(PERSONAL))
        models = {personal.tag: personal, **models}
    return models


def _changed(path: str) -> float:
    try:
        return Path(path).stat().st_mtime if path else 0.0
    except OSError:
        return 0.0
