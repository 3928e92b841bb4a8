"""Opens a model by name or path: a native model, a Hugging Face or GGUF model with or without an adapter, or one of
Ollama.

The only importer of `engine.inference.backends`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.config import load_settings
from engine.core.paths import Workspace
from engine.inference.language_model import LanguageModel
from engine.inference.llama.parameters import MIN_CONTEXT, LlamaMemory, NoMemory, fit_memory, threads_for
from engine.machine.budget import resolve_budget
from engine.machine.cpu import usable_cores
from engine.models.base_models import BaseModel, adapter_card, find_base
from engine.models.card import GGUF_ADAPTER, read_card
from engine.models.ollama.running import installed_models
from engine.models.ollama.store import find_manifest
from engine.models.resolve import ModelKind, ModelOrigin, find_place, kind_of, split_adapter
from engine.runs.shared_memory import runs_mb, service_mb

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from engine.inference.backends.hf import HFModel
    from engine.inference.backends.llama_cpp import LlamaCppModel
    from engine.models.chat_template import ChatTemplate
    from engine.models.chatml import ByteChatTemplate
    from engine.models.weights import Weights


_TORCH_MB = 250
"""What torch takes beside weights."""


def open_language_model(
    ws: Workspace, model: str | Path, *, serving: bool = False, loaded_mb: float = 0.0
) -> LanguageModel:
    """Loads a model. Blocking; imports torch only for a backend that needs it.

    Args:
        model: a name as in `find_place`, or `BASE + ADAPTER`, or the folder or GGUF file itself.
        serving: the model only generates, next to other work on this machine. A tag is then left to Ollama, where that
            answers; otherwise its file is read from Ollama's store. It must fit into the memory budget beside the
            runs of the workspace.
        loaded_mb: what models that serve already take of the memory budget.

    Raises BadInput for an unknown or broken model, NoMemory for one that does not fit, ServiceUnreachable when its base
    is in Ollama and that does not answer.
    """
    place = find_place(ws, str(model))
    adapter_base = split_adapter(model)[1] if isinstance(model, str) else ""
    foreign = place.origin is ModelOrigin.OLLAMA
    if foreign and (find_manifest(ws, place.tag) is None or (serving and _is_served(place.tag))):
        from engine.inference.backends.ollama import OllamaModel

        return OllamaModel(place.tag)
    if place.kind is ModelKind.NATIVE:
        from engine.inference.backends.native import NativeModel

        if serving:
            _check_room(ws, read_card(place.path).parameters * 4 / 2**20, loaded_mb)
        return NativeModel.load(place.path, single_thread=serving)
    base = find_base(ws, adapter_base or place.reference)
    if adapter_base:
        base = replace(base, adapter=place.path)
    taken_mb = _taken_mb(ws, loaded_mb) if serving else _torch_mb(base) + service_mb(ws)
    served = _in_llama_cpp(ws, base, taken_mb=taken_mb, required=serving)
    if served is not None:
        if serving:
            served.start()
        return served
    if serving:
        _check_room(ws, _torch_mb(base), loaded_mb)
    from engine.inference.backends.hf import HFModel

    return HFModel.load(base, name=base.adapter.name if base.adapter is not None else base.name)


def _in_llama_cpp(
    ws: Workspace,
    base: BaseModel,
    *,
    taken_mb: float = 0.0,
    scorer: HFModel | None = None,
    required: bool = False,
) -> LlamaCppModel | None:
    """The model with llama.cpp as its generator; None where llama.cpp cannot read it.

    `scorer` is the same model in torch, where that is loaded; `taken_mb` of the memory budget are in use, by its weights
    too. Where llama.cpp does not fit beside them: None, or NoMemory when it is `required`.
    """
    if not base.is_gguf:
        return None
    from engine.inference.backends.llama_cpp import LlamaCppModel, can_serve

    if not can_serve(base):
        return None
    copies = (base.path, base.lora, base.adapter and base.adapter / GGUF_ADAPTER)
    weights_mb = sum(file.stat().st_size for file in copies if file is not None) / 2**20
    try:
        memory = fit_memory(base.dimensions, weights_mb, _budget_mb(ws), taken_mb)
    except NoMemory:
        if required:
            raise
        return None
    if 0 < base.served_context < memory.context:
        memory = LlamaMemory(max(base.served_context, MIN_CONTEXT), memory.cache_mb)
    return LlamaCppModel(base, memory, threads=threads_for(weights_mb, usable_cores()), scorer=scorer)


def _budget_mb(ws: Workspace) -> float:
    return resolve_budget(load_settings(ws).max_memory_gb).mb


def _taken_mb(ws: Workspace, loaded_mb: float) -> float:
    """MB of the memory budget that a model to be served finds in use."""
    return loaded_mb + runs_mb(ws, _budget_mb(ws))


def _check_room(ws: Workspace, weights_mb: float, loaded_mb: float) -> None:
    """Raises NoMemory when a model in torch does not fit into the budget beside what is in use."""
    budget_mb, taken_mb = _budget_mb(ws), _taken_mb(ws, loaded_mb)
    needed_mb = weights_mb + (0 if "torch" in sys.modules else _TORCH_MB)
    if needed_mb + taken_mb > budget_mb:
        raise NoMemory.of(needed_mb, budget_mb, taken_mb)


def _torch_mb(base: BaseModel) -> float:
    """MB of the weights in torch."""
    from engine.models.hf import base_format

    card = adapter_card(base.adapter) if base.adapter is not None else None
    return base.parameters * (4 if base_format(base, card) == "float32" else 2) / 2**20


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
    shared: dict[tuple[object, object], list[tuple[int, BaseModel]]] = {}
    for number, place in enumerate(places):
        if kind_of(place) is not ModelKind.NATIVE:
            base = find_base(ws, str(place))
            shared.setdefault((_file_id(base.path), _file_id(base.lora)), []).append((number, base))
    beside_mb = service_mb(ws)
    for users in shared.values():
        if len(users) > 1:
            from engine.inference.backends.hf import load_together

            loaded = load_together([base for _number, base in users])
            for (number, base), model in zip(users, loaded, strict=True):
                served = _in_llama_cpp(ws, base, taken_mb=model.memory_mb + beside_mb, scorer=model)
                opened[number] = served or model
    return [opened.get(number) or open_language_model(ws, place) for number, place in enumerate(places)]


def _file_id(path: Path | None) -> object:
    """What two names of one file share: the blob of a served model is a link to its base."""
    if path is None or not path.is_file():
        return path
    stat = path.stat()
    return stat.st_dev, stat.st_ino


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
