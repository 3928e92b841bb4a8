"""Fits a base and its adapter into the memory budget from file headers alone, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import torch

from engine.core.errors import UsageProblem
from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.machine.budget import Budget
from engine.models.adapter_settings import read_adapter_settings
from engine.models.base_models import FOUR_BIT, BaseModel, ModelDimensions
from engine.models.losses import CHUNK_BYTES
from engine.training.recipe import LoraSettings

PROGRAM_MB = 520.0
"""Resident memory of Python with torch, transformers and PEFT."""
ADAPTER_PARAMETER_BYTES = 32
"""Per adapter parameter: weight, gradient, two moments, and the copies for measurements and rollbacks."""
FOUR_BIT_PARAMETER_BYTES = 0.57
"""Per parameter in NF4 with double quantization."""
MIN_BASE_PARAMETERS = 5_000_000
"""Smallest base size worth suggesting, in parameters."""
MIN_CONTEXT = 128
"""Smallest useful window, in tokens."""
_MB = 2**20
_KEEP_SHARE = 0.9
"""Activation checkpointing is used when the activations of the longest window alone would take more than this share
of the remaining budget; a measurement before the first step decides about whole steps."""


@dataclass(frozen=True)
class LoraFit:
    """How to load and train a base within the budget."""

    dtype: torch.dtype
    four_bit: bool
    context: int
    activation_checkpointing: bool
    """On from the first step."""
    need_mb: float

    @property
    def format(self) -> str:
        """ "float32", "bfloat16" or "4bit", as in the model card."""
        return FOUR_BIT if self.four_bit else str(self.dtype).removeprefix("torch.")


def fit_to_budget(
    base: BaseModel,
    adapter: LoraSettings,
    budget: Budget,
    *,
    context: int,
    four_bit: bool,
    bf16_fast: bool,
    longest: int | None = None,
) -> LoraFit:
    """The best option that fits, with windows of at most `context` tokens; the data's own have at most `longest`.

    An adapter that is continued keeps its rank, whatever `adapter` says.

    Raises UsageProblem, before loading, that names the size of the largest base that would fit.
    """
    shape = base.dimensions
    context = min(context, shape.context)
    tokens = min(context, longest or context)
    if base.adapter is not None:
        adapter = msgspec.structs.replace(adapter, rank=read_adapter_settings(base.adapter).rank)
    options: list[tuple[torch.dtype, bool]] = [(torch.bfloat16, four_bit)]
    if not four_bit and not bf16_fast:
        options.insert(0, (torch.float32, False))
    for dtype, four in options:
        fixed = PROGRAM_MB + weights_mb(base, dtype, four_bit=four) + adapter_mb(shape, adapter)
        for checkpointing in (False, True):
            activations = activations_mb(shape, tokens, dtype, checkpointing=checkpointing)
            if activations <= _KEEP_SHARE * (budget.mb - fixed):
                return LoraFit(dtype, four, context, checkpointing, fixed + activations)
    dtype, four = options[-1]
    fixed = PROGRAM_MB + weights_mb(base, dtype, four_bit=four) + adapter_mb(shape, adapter)
    while context > MIN_CONTEXT:
        context = max(MIN_CONTEXT, context // 2)
        need = fixed + activations_mb(shape, min(tokens, context), dtype, checkpointing=True)
        if need <= budget.mb:
            return LoraFit(dtype, four, context, True, need)
    need = fixed + activations_mb(shape, MIN_CONTEXT, dtype, checkpointing=True)
    largest = largest_base(budget, four_bit=four)
    text = (
        _(
            "the base {name} with {size:.2f} billion parameters needs about {need} MB and the budget is "
            "{budget} MB; the largest that fits has about {largest:.2f} billion ({format})"
        )
        if largest >= MIN_BASE_PARAMETERS
        else _("the base {name} needs about {need} MB; no base fits the budget of {budget} MB")
    )
    raise UsageProblem(
        text.format(
            name=base.name,
            size=base.parameters / 1e9,
            need=round(need),
            budget=round(budget.mb),
            largest=largest / 1e9,
            format=_("4 bits") if four else "bfloat16",
        ),
        # Where the system is the limit, a larger setting would not help.
        hint=f"h2q-tui train --mode lora --model {shell_word(base.source)} "
        f"--max-memory-gb {need / 1024 + 0.2:.1f}"
        if budget.reason == "max_memory_gb"
        else "h2q-tui check",
    )


def weights_mb(base: BaseModel, dtype: torch.dtype, *, four_bit: bool) -> float:
    """MB of the loaded weights; with 4-bit layers the embedding and the head stay in 16 bits."""
    if not four_bit:
        return base.parameters * dtype.itemsize / _MB
    embedding = min(base.dimensions.vocab * base.dimensions.hidden, base.parameters)
    return (embedding * 2 + (base.parameters - embedding) * FOUR_BIT_PARAMETER_BYTES) / _MB


def adapter_parameters(shape: ModelDimensions, adapter: LoraSettings) -> int:
    """Parameters of an adapter on every linear layer; an upper bound when modules are named."""
    width, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * (shape.hidden + width) + 2 * (shape.hidden + kv)
    return shape.layers * adapter.rank * (attention + 3 * (shape.hidden + shape.ffn))


def adapter_mb(shape: ModelDimensions, adapter: LoraSettings) -> float:
    return adapter_parameters(shape, adapter) * ADAPTER_PARAMETER_BYTES / _MB


def activations_mb(shape: ModelDimensions, tokens: int, dtype: torch.dtype, *, checkpointing: bool) -> float:
    """MB of a window's activations: those saved for the backward pass, and the logits of a chunk."""
    layer = tokens * _layer_bytes(shape, dtype) / _MB if checkpointing else 0.0
    return tokens * token_mb(shape, dtype, checkpointing=checkpointing) + layer + 3 * CHUNK_BYTES / _MB


def token_mb(shape: ModelDimensions, dtype: torch.dtype, *, checkpointing: bool) -> float:
    """MB of a token's activations that are saved for the backward pass."""
    kept = 4 * shape.hidden if checkpointing else _layer_bytes(shape, dtype)
    return shape.layers * kept / _MB


def _layer_bytes(shape: ModelDimensions, dtype: torch.dtype) -> int:
    """A layer's bytes per token: its own tensors in the base's format, and the adapter's inputs in float32."""
    width = shape.heads * shape.head_dim
    return (10 * shape.hidden + 8 * width + 6 * shape.ffn) * (dtype.itemsize + 2)


def largest_base(budget: Budget, *, four_bit: bool) -> float:
    """Parameters of the largest trainable base: its weights may take 85 % of the budget left by the program."""
    each = FOUR_BIT_PARAMETER_BYTES + 0.2 if four_bit else 2.0
    return max(0.0, 0.85 * (budget.mb - PROGRAM_MB) * _MB / each)
