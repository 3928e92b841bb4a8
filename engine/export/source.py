"""The source of an export, read before its weights: a native model, a Hugging Face directory, a GGUF file or an
Ollama tag, with or without an adapter.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.files import file_sha256
from engine.core.paths import Workspace
from engine.export.vocabulary import Vocabulary, read_vocabulary
from engine.models.base_models import BaseModel, adapter_card, find_base
from engine.models.card import ADAPTER_WEIGHTS, CARD_FILE, WEIGHTS_FILE, ModelCard, load_card, weights_changed
from engine.models.gguf.file import GgufFile
from engine.models.gguf.model import GgufModel, open_gguf
from engine.models.hf import set_default_system
from engine.models.resolve import ModelKind, kind_of
from engine.models.weights import (
    GgufWeights,
    LoraPair,
    MergedWeights,
    SafetensorsWeights,
    Weights,
    read_adapter,
    read_gguf_adapter,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


@dataclass(frozen=True)
class ExportSource:
    """A model on disk. `name` becomes the name of the export."""

    name: str
    base: BaseModel
    card: ModelCard | None
    """Card of the model or the adapter; None for a model from elsewhere."""

    @property
    def adapter(self) -> Path | None:
        return self.base.adapter

    @property
    def is_native(self) -> bool:
        """Whether this is the built-in byte-level model."""
        return self.adapter is None and kind_of(self.base.path) is ModelKind.NATIVE

    @cached_property
    def gguf(self) -> GgufModel | None:
        """The base if it is a GGUF file, else None. Raises BadInput."""
        return open_gguf(self.base.path) if self.base.is_gguf else None

    @cached_property
    def config(self) -> PretrainedConfig:
        """The transformers configuration. Raises BadInput."""
        if self.gguf is not None:
            return self.gguf.config
        from transformers import AutoConfig

        config: PretrainedConfig = AutoConfig.from_pretrained(
            self.base.path, local_files_only=True, trust_remote_code=False
        )
        return config

    @cached_property
    def pairs(self) -> dict[str, LoraPair]:
        """The matrices of the adapter; empty without one. Raises BadInput."""
        return {} if self.adapter is None else read_adapter(self.adapter)

    @cached_property
    def weights(self) -> Weights:
        """The weights of the base with the adapter merged. Raises BadInput."""
        weights: Weights = SafetensorsWeights(self.base.path) if self.gguf is None else GgufWeights(self.gguf)
        if self.gguf is not None and self.base.lora is not None:
            weights = MergedWeights(weights, read_gguf_adapter(self.base.lora, self.gguf))
        if self.config.tie_word_embeddings:
            # Some files store the embedding twice; an adapter on the head alone would separate the copies.
            weights.shapes.pop("lm_head.weight", None)
        return MergedWeights(weights, self.pairs) if self.pairs else weights

    @property
    def vocabulary(self) -> Vocabulary | GgufFile:
        """The vocabulary of the tokenizer, or the GGUF file to copy it from. Raises BadInput."""
        if self.gguf is not None:
            return self.gguf.file
        return read_vocabulary(self.tokenizer_folder, self.config.vocab_size, self.eos_ids)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: the adapter's if it has its own."""
        own = self.adapter is not None and (self.adapter / "tokenizer.json").is_file()
        return self.adapter if own and self.adapter is not None else self.base.path

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer, from generation_config.json, else from config.json."""
        if self.gguf is not None:
            return self.gguf.eos_ids
        eos: Any = self.generation.get("eos_token_id")
        eos = self.config.eos_token_id if eos is None else eos
        numbers = eos if isinstance(eos, list) else [eos]
        return tuple(number for number in numbers if isinstance(number, int))

    @cached_property
    def generation(self) -> dict[str, Any]:
        """generation_config.json of the base; empty without one."""
        try:
            stored = json.loads((self.base.path / "generation_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def metadata(self) -> dict[str, str]:
        """GGUF metadata about the origin of the model."""
        metadata = {"general.description": "made by h2q-tui on the machine of its owner"}
        if self.adapter is not None or (self.card is not None and self.card.base):
            metadata["general.base_model.0.name"] = self.base.name if self.card is None else self.card.base
        if self.card is not None:
            metadata |= {
                "h2q.name": self.card.name,
                "h2q.mode": self.card.mode,
                "h2q.base": self.card.base,
                "h2q.run_id": self.card.run_id,
                "h2q.weights_sha256": self.card.weights_sha256,
                "h2q.dataset_sha256": self.card.lineage.dataset_sha256,
            }
        return {key: value for key, value in metadata.items() if value}

    def copy_tokenizer(self, folder: Path) -> None:
        """Copies the files of the tokenizer and its chat template into `folder`. Raises OSError, BadInput."""
        if self.gguf is not None:
            tokenizer = self.gguf.tokenizer()
            if self.base.system:
                set_default_system(tokenizer, self.base.system)
            tokenizer.save_pretrained(folder)
            return
        for name in TOKENIZER_FILES:
            if (self.tokenizer_folder / name).is_file():
                shutil.copyfile(self.tokenizer_folder / name, folder / name)


def find_export_source(ws: Workspace, name: str) -> ExportSource:
    """The source for `name` (`resolve.find_place`).

    Raises BadInput when nothing is found or headers are broken; ServiceUnreachable for a tag outside the local
    stores while Ollama does not answer.
    """
    base = find_base(ws, name)
    if base.adapter is not None:
        return ExportSource(base.adapter.name, base, adapter_card(base.adapter))
    card = load_card(base.path) if not base.is_gguf and (base.path / CARD_FILE).is_file() else None
    return ExportSource(_file_name(card.name if card is not None else base.name), base, card)


def check_weights(source: ExportSource, step: Callable[[], None] | None = None) -> None:
    """Raises BadInput when the weights have changed since the card was written (reads all of them)."""
    if source.card is None or not source.card.weights_sha256:
        return
    file = source.adapter / ADAPTER_WEIGHTS if source.adapter is not None else source.base.path / WEIGHTS_FILE
    if file.is_file() and file_sha256(file, step) != source.card.weights_sha256:
        raise weights_changed(file)


def _file_name(name: str) -> str:
    """A tag as a valid file and model name: `qwen3:0.6b` becomes `qwen3-0.6b`."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).lstrip("-.")
    return kept[:80] or "model"
