"""The short form of a run: what lists show, what others read as JSON, and what `state.json` holds."""

from __future__ import annotations

import msgspec

from engine.runs.events import RunStatus


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`runs show --json` (DESIGN 5), and what `state.json` holds. Times are seconds since the epoch."""

    id: str
    kind: str
    label: str
    status: RunStatus
    stage: str
    step: int
    max_steps: int
    loss: float | None
    best_loss: float | None
    tokens_per_s: float | None
    memory_mb: float | None
    peak_memory_mb: float | None
    budget_mb: float | None = None
    """What `peak_memory_mb` is held against."""
    streaming_efficiency: float | None = None
    """Share of the time of training, 0 to 1, that was not spent waiting for data."""
    eta_s: float | None
    created_at: float | None
    started_at: float | None
    finished_at: float | None
    checkpoint: str | None
    error: str
