"""What can be done when memory runs short, from the mildest remedy to the last."""

from __future__ import annotations

from enum import StrEnum

BUFFER_SHARE = 1 / 4
"""Of the budget that `memory_buffer_gb` may be at most: a small budget is still of use."""


class Remedy(StrEnum):
    CACHES = "caches"
    SMALLER = "smaller"
    """Half the windows in a pass, twice the passes of a step: the same batch."""
    RECOMPUTE = "recompute"
    """Activation checkpointing: layers are computed again in the backward pass."""
    STOP = "stop"
    """A checkpoint, and the end with a clear error."""


def buffer_mb(budget_mb: float, wanted_mb: float = 512.0) -> float:
    """What is to stay free of a budget when the settings want `wanted_mb`."""
    return min(wanted_mb, BUFFER_SHARE * budget_mb)


def remedy(
    used_mb: float, budget_mb: float, free_mb: float, *, dropped: bool, halvable: bool, recomputes: bool
) -> Remedy | None:
    """The mildest remedy not yet taken when less than `free_mb` is left; STOP only above the budget itself.

    `dropped`: caches have just been dropped. `halvable`: a pass has more than one window. `recomputes`:
    activation checkpointing is on. An infinite `used_mb` stands for an allocation that failed.
    """
    if used_mb <= budget_mb - free_mb:
        return None
    if not dropped:
        return Remedy.CACHES
    if halvable:
        return Remedy.SMALLER
    if not recomputes:
        return Remedy.RECOMPUTE
    return Remedy.STOP if used_mb > budget_mb else None
