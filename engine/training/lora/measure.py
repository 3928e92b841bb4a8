"""Fits the steps of an adapter into the memory budget by measuring real ones, in the order of their speed.

Smaller micro-batches cost least, then memory that is returned to the system after each use, then activations that are
computed again.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from engine.core.errors import is_out_of_memory
from engine.core.i18n import _
from engine.models.losses import CHUNK_BYTES
from engine.runs import events
from engine.training.autotune import keep_freed_memory
from engine.training.batches import MicroBatch
from engine.training.peak_memory import PeakMemory
from engine.training.trainer import TrainingJob

MAX_MEASUREMENTS = 6
SURE_SHARE = 2 / 3
"""A step whose estimate takes at most this share of the room is not measured: estimates are above what is measured."""
LONG_S = 3.0
"""Where the time decides the number of steps, a shorter one is timed again: its first measurement filled caches.
Elsewhere the steps themselves correct the estimate."""


@dataclass(frozen=True)
class StepTime:
    """The measured time of a step."""

    seconds: float
    tokens: int
    """Without padding."""


def fit_step(
    job: TrainingJob, number: int, token_mb: float, memory: PeakMemory, used_mb: float, room_mb: float
) -> StepTime:
    """Sets micro-batches, allocator and activation checkpointing so that the heaviest step fits into `room_mb`.

    `number` is that of its batch, `token_mb` the estimated MB of a token's activations; `used_mb` MB are in use
    already. Returns the time of the last measured step, and journals the measurements.
    """
    state, batches = job.state, job.batches

    def largest(tokens: int) -> MicroBatch:
        batches.tokens_per_micro_batch = tokens
        cut = batches.batch_at(number, state.max_steps).micro_batches
        return max(cut, key=lambda part: part.ids.numel())

    part = largest(1 << 40)
    while part.parts > 1 and part.ids.numel() * token_mb > room_mb - used_mb:
        part = largest(part.ids.numel() // 2)
    measured: list[tuple[int, float]] = []
    seconds = peak = 0.0
    returned = False
    while len(measured) < MAX_MEASUREMENTS:
        begin = time.perf_counter()
        peak = _peak_mb(job, memory, part)
        seconds, tokens = time.perf_counter() - begin, part.ids.numel()
        measured.append((tokens, peak))
        if peak > room_mb:
            if part.parts > 1:
                part = largest(tokens // 2)
            elif not returned:
                returned = True
                keep_freed_memory(keep=False)
            elif not state.activation_checkpointing:
                state.activation_checkpointing = job.model.model.activation_checkpointing = True
            else:
                break
            continue
        more = largest(2 * tokens)
        known = any(more.ids.numel() >= size and mb > room_mb for size, mb in measured)
        if more.ids.numel() <= tokens or known or used_mb + 2 * (peak - used_mb) > room_mb:
            break
        part = more
    state.tokens_per_micro_batch = batches.tokens_per_micro_batch = part.ids.numel()
    if returned:
        job.ctx.log(
            _("memory is returned to the system after each use, which costs speed: the budget is short")
        )
    _emit_plan(job, measured, part.ids.numel(), used_mb, room_mb)
    if seconds < LONG_S and job.recipe.time_budget_s is not None:
        return time_step(job)
    batch = batches.batch_at(number, state.max_steps)
    whole = sum(one.ids.numel() for one in batch.micro_batches)
    return StepTime(seconds * whole / part.ids.numel(), batch.tokens)


def surely_fits(job: TrainingJob, number: int, token_mb: float, used_mb: float, room_mb: float) -> bool:
    """Whether all of batch `number` together fits into `room_mb` by its estimate alone; then one micro-batch holds it."""
    batches = job.batches
    batches.tokens_per_micro_batch = 1 << 40
    parts = batches.batch_at(number, job.state.max_steps).micro_batches
    if len(parts) > 1:
        return False
    tokens = parts[0].ids.numel()
    estimate = tokens * token_mb + 3 * CHUNK_BYTES / 2**20
    if estimate > SURE_SHARE * (room_mb - used_mb):
        return False
    job.state.tokens_per_micro_batch = batches.tokens_per_micro_batch = tokens
    _emit_plan(job, [], tokens, used_mb, room_mb, estimate_mb=round(used_mb + estimate, 1))
    return True


def time_step(job: TrainingJob) -> StepTime:
    """Times the passes of the next batch; the model is unchanged."""
    batch = job.batches.batch_at(job.state.batches_drawn, job.state.max_steps)
    begin = time.perf_counter()
    job.accumulate(batch)
    seconds = time.perf_counter() - begin
    job.optimizer.zero_grad()
    return StepTime(seconds, batch.tokens)


def _emit_plan(
    job: TrainingJob,
    measured: list[tuple[int, float]],
    tokens: int,
    used_mb: float,
    room_mb: float,
    estimate_mb: float | None = None,
) -> None:
    job.ctx.emit(
        events.MemoryPlan(
            phase=job.state.phase,
            program_mb=round(used_mb, 1),
            estimate_mb=estimate_mb,
            measured=[(size, round(mb, 1)) for size, mb in measured if math.isfinite(mb)],
            context=0,
            windows=tokens,
            recompute=job.state.activation_checkpointing,
            room_mb=round(room_mb, 1),
            budget_mb=round(job.budget.mb, 1) if job.budget else 0.0,
            reason=job.budget.reason if job.budget else "",
        )
    )


def _peak_mb(job: TrainingJob, memory: PeakMemory, part: MicroBatch) -> float:
    """Peak MB of a forward and backward pass; infinite when an allocation fails."""
    memory.drop_caches()
    memory.peak_mb()
    try:
        job.accumulate_here([part])
        return memory.peak_mb()
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        return math.inf
    finally:
        job.optimizer.zero_grad()
