"""The micro-batch size of a new phase: an estimate, up to three measurements, and the largest size that fits
the budget."""

from __future__ import annotations

import math

import torch

from engine.core.errors import is_out_of_memory
from engine.core.i18n import _
from engine.machine.budget import Budget
from engine.models.transformer import BLOCKED_ATTENTION, ModelConfig, Transformer
from engine.runs import events
from engine.training.batches import MicroBatch
from engine.training.peak_memory import PeakMemory
from engine.training.recipe import Recipe
from engine.training.trainer import TrainingJob

PROGRAM_MB = 400
"""Resident memory of Python with torch and an idle model, rounded up."""
PROBE_WINDOWS = 4
"""Windows of the second measured micro-batch."""
STATE_BYTES = 32
"""Bytes per trained parameter that a forward and backward pass does not show: two moments, the copies for
speed measurements, and a checkpoint in memory, once as tensors and once as the bytes of its file."""


def bytes_per_token(config: ModelConfig, context: int) -> float:
    """Bytes per token of a forward and backward pass: float32 activations and logits.

    Activations per layer: about 10 `dim` for norms and residuals, 10 times the attention width for projections,
    rotations and attention, 5 `ffn` for SwiGLU, and the attention scores of one block where attention is not
    fused. Logits, their gradient and the softmax take 4 vocabularies.
    """
    width = config.heads * config.head_dim
    scores = config.heads * min(context, BLOCKED_ATTENTION)
    layer = 10 * config.dim + 10 * width + 5 * config.ffn + scores
    return 4.0 * (config.layers * layer + 4 * config.vocab)


def estimated_tokens(recipe: Recipe, config: ModelConfig, parameters: int, budget: Budget) -> int:
    """Tokens of a micro-batch within three quarters of the budget; at least one window.

    Weights, gradients and two moments take four bytes each.
    """
    room = 0.75 * budget.mb - PROGRAM_MB - 16 * parameters / 2**20
    longest = max(stage.context for stage in recipe.curriculum)
    fits = int(max(0.0, room) * 2**20 / bytes_per_token(config, longest))
    return max(fits, longest)


def windows_that_fit(room_mb: float, one_mb: float, more_mb: float, rows: int) -> int:
    """Windows per micro-batch that fit into `room_mb`, when one takes `one_mb` and `rows` take `more_mb`
    together.

    A power of two, so that repeated measurements agree; at least 1.
    """
    each = max((more_mb - one_mb) / max(1, rows - 1), 1e-3)
    fits = 1 + max(0.0, room_mb - one_mb) / each
    return int(2 ** math.floor(math.log2(fits)))


def windows_to_probe(room_mb: float, one_mb: float, idle_mb: float) -> int:
    """Windows that can be measured together within `room_mb`, when one takes `one_mb` including the program."""
    return int(1 + max(0.0, room_mb - one_mb) / max(one_mb - idle_mb, 1.0))


def fit_micro_batch(job: TrainingJob, memory: PeakMemory, used_mb: float, room_mb: float) -> None:
    """Sets the micro-batches of a new phase to the largest size that fits into `room_mb`, and journals the
    measurements.

    `used_mb` MB are in use already. Turns on activation checkpointing when a single window does not fit
    without it.
    """
    stage = max(job.recipe.curriculum, key=lambda one: one.context)
    # No batch has more windows than this.
    needed = min(stage.batch, job.recipe.micro_batch or stage.batch)
    measured: list[tuple[int, float]] = []

    def measure(rows: int) -> float:
        peak = _measured(job, memory, rows, stage.context)
        measured.append((rows, peak))
        return peak

    try:
        one = measure(1)
        if one > room_mb:
            job.state.activation_checkpointing = job.model.model.activation_checkpointing = True
            one = measure(1)
        rows = min(PROBE_WINDOWS, max(2, needed), max(1, windows_to_probe(room_mb, one, used_mb)))
        more = measure(rows) if rows > 1 else one
        fits = windows_that_fit(room_mb, one, more, rows) if rows > 1 else 1
        while min(fits, needed) > rows and measure(min(fits, needed)) > room_mb:
            fits //= 2
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        job.ctx.log(_("memory: a measured micro-batch did not fit; the estimated size is used"), "warning")
        # The first step handles what does not fit.
        return
    finally:
        job.optimizer.zero_grad()
        memory.drop_caches()
    job.state.tokens_per_micro_batch = job.batches.tokens_per_micro_batch = fits * stage.context
    windows = min(fits, needed)
    job.ctx.emit(
        events.MemoryPlan(
            phase=job.state.phase,
            program_mb=round(used_mb, 1),
            estimate_mb=estimate_mb(job, used_mb, windows, stage.context),
            measured=[(rows, round(mb, 1)) for rows, mb in measured],
            context=stage.context,
            windows=windows,
            recompute=job.state.activation_checkpointing,
            room_mb=round(room_mb, 1),
            budget_mb=round(job.budget.mb, 1) if job.budget else 0.0,
            reason=job.budget.reason if job.budget else "",
        )
    )


def estimate_mb(job: TrainingJob, used_mb: float, windows: int, context: int) -> float | None:
    """Estimated MB of a micro-batch with the program, from the dimensions of the model; None for an adapter."""
    if not isinstance(job.model, Transformer):
        return None
    return round(used_mb + windows * context * bytes_per_token(job.model.config, context) / 2**20, 1)


def _measured(job: TrainingJob, memory: PeakMemory, rows: int, length: int) -> float:
    """Peak MB of a forward and backward pass over `rows` windows; the model is unchanged."""
    ids = torch.zeros(rows, length, dtype=torch.long)
    weights = torch.full(ids.shape, 1.0 / ids.numel())
    memory.drop_caches()
    memory.peak_mb()
    job.accumulate_here([MicroBatch(ids, ids, weights, weights)])
    peak = memory.peak_mb()
    job.optimizer.zero_grad()
    return peak
