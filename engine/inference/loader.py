"""Opens a model by name or path: a native model, a Hugging Face model with or without an adapter, or one of Ollama.

The only importer of `engine.inference.backends`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.paths import Workspace
from engine.inference.language_model import LanguageModel
from engine.models.base_models import BaseModel, find_base
from engine.models.ollama.running import installed_models
from engine.models.ollama.store import find_manifest
from engine.models.resolve import ModelKind, find_place, kind_of, split_adapter

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from engine.models.chat_template import ChatTemplate
    from engine.models.chatml import ByteChatTemplate
    from engine.models.weights import Weights


def open_language_model(ws: Workspace, model: str | Path, *, serving: bool = False) -> LanguageModel:
    """Loads a model. Blocking; imports torch only for a backend that needs it.

    Args:
        model: a name as in `find_place`, or `BASE + ADAPTER`, or the folder or GGUF file itself.
        serving: the model only generates, next to other work on this machine. A tag is then left to Ollama, where that
            answers; otherwise its file is read from Ollama's store.

    Raises BadInput for an unknown or broken model, ServiceUnreachable when its base is in Ollama and that does not answer.
    """
    place = find_place(ws, str(model))
    adapter_base = split_adapter(model)[1] if isinstance(model, str) else ""
    if place.tag and (find_manifest(place.tag) is None or (serving and _is_served(place.tag))):
        from engine.inference.backends.ollama import OllamaModel

        return OllamaModel(place.tag)
    if place.kind is ModelKind.NATIVE:
        from engine.inference.backends.native import NativeModel

        return NativeModel.load(place.path, single_thread=serving)
    from engine.inference.backends.hf import HFModel

    base = find_base(ws, adapter_base or place.reference)
    if adapter_base:
        base = replace(base, adapter=place.path)
    return HFModel.load(base, name=base.adapter.name if base.adapter is not None else base.name)


def _is_served(tag: str) -> bool:
    """Whether an Ollama on this machine answers and has `tag`."""
    return bool({tag, f"{tag}:latest"} & set(installed_models()))


def open_pair(ws: Workspace, first: Path, second: Path) -> tuple[LanguageModel, LanguageModel]:
    """Two models to compare. Weights of a Hugging Face base that both use are loaded once. Raises BadInput."""
    one, other = open_together(ws, [first, second])
    return one, other


def open_together(ws: Workspace, places: Sequence[Path]) -> list[LanguageModel]:
    """Models to compare, in order. Weights of a Hugging Face base that several use are loaded once. Raises BadInput."""
    opened: dict[int, LanguageModel] = {}
    shared: dict[tuple[Path, Path | None, str], list[tuple[int, BaseModel]]] = {}
    for number, place in enumerate(places):
        if kind_of(place) is not ModelKind.NATIVE:
            base = find_base(ws, str(place))
            shared.setdefault((base.path, base.lora, base.system), []).append((number, base))
    for users in shared.values():
        if len(users) > 1:
            from engine.inference.backends.hf import load_together

            loaded = load_together([base for _number, base in users])
            opened |= dict(zip((number for number, _base in users), loaded, strict=True))
    return [opened.get(number) or open_language_model(ws, place) for number, place in enumerate(places)]


def open_weights(
    config: PretrainedConfig,
    weights: Weights,
    dtype: torch.dtype,
    chat: ChatTemplate | ByteChatTemplate,
    *,
    eval_context: int,
) -> LanguageModel:
    """A model of transformers filled with `weights`, as an export reads them; native models included."""
    from engine.inference.backends.hf import HFModel
    from engine.models.hf import context_of
    from engine.models.weights import load_weights

    return HFModel(load_weights(config, weights, dtype), chat, context_of(config), eval_context=eval_context)
