"""How a process builds the model of a `lora` phase: the base, and the adapter on it before its weights are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.models.base_models import BaseModel
from engine.training.recipe import LoraSettings

if TYPE_CHECKING:
    from engine.models.adapters import AdapterModel


@dataclass(frozen=True)
class LoraSource:
    """Everything that determines the layers of an adapter and of its base."""

    base: BaseModel
    format: str
    """Of the base's weights: "float32" or "bfloat16"."""
    four_bit: bool
    context: int
    adapter: LoraSettings
    seed: int

    def open(self, device: str) -> tuple[AdapterModel, Any]:
        """(the model, its PeftModel) on `device`. Raises BadInput for broken files."""
        # Takes longer to import than a rank without an adapter takes to start.
        from engine.models.adapters import AdapterModel, attach_adapter, new_adapter
        from engine.models.hf import load_base

        dtype: torch.dtype = getattr(torch, self.format)
        model = load_base(self.base, dtype, four_bit=self.four_bit, device=device)
        peft = (
            attach_adapter(model, self.base.adapter, trainable=True)
            if self.base.adapter is not None
            else new_adapter(model, self.adapter, self.seed)
        )
        return AdapterModel(peft, self.context), peft


@dataclass(frozen=True)
class LoraSetup:
    """How another process computes with an adapter as the first one does."""

    source: LoraSource
    joined: bool
    """Rows join conversations."""
    longest: int
    """Tokens of the longest conversation."""
