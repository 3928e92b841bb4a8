"""A point of the history from a sample of the machine and the figures of the run on it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.machine.history import HistoryPoint, make_point
from engine.machine.probes import MachineSample


class RunFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the history keeps of the run in progress. Memory in bytes; None for what there is not."""

    memory: float | None = None
    budget: float | None = None
    loss: float | None = None
    tokens_per_s: float | None = None


NO_RUN = RunFigures()


def group_shares(sample: MachineSample) -> list[float]:
    """The mean busy share of each core group, in percent; empty where the shares are not known."""
    shares = sample.cpu_percent
    if not shares:
        return []
    groups = [group.cores for group in sample.core_groups] or [tuple(range(len(shares)))]
    return [_mean([shares[core] for core in cores if core < len(shares)]) for cores in groups]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def record(sample: MachineSample, run: RunFigures = NO_RUN) -> HistoryPoint:
    """The point of `sample`, with the figures of `run`."""
    values: dict[str, float | None] = {
        f"cpu_{number}": share for number, share in enumerate(group_shares(sample)[:4], 1)
    }
    busy = [gpu.busy_percent for gpu in sample.gpus if gpu.busy_percent is not None]
    held = [gpu.memory_used for gpu in sample.gpus if gpu.memory_used is not None]
    values |= {
        "memory_total": sample.memory_total,
        "memory_used": sample.memory_used,
        "memory_run": run.memory,
        "memory_cached": sample.memory_cached,
        "memory_budget": run.budget,
        "swap_used": sample.swap_used,
        "cpu_stalled": sample.cpu_stalled_percent,
        "memory_stalled": sample.memory_stalled_percent,
        "io_stalled": sample.io_stalled_percent,
        "disk_free": sample.disk_free,
        "temperature": sample.temperature_c,
        "power": sample.power_w,
        "gpu_busy": _mean(busy) if busy else None,
        "gpu_memory": sum(held) if held else None,
        "loss": run.loss,
        "tokens_per_s": run.tokens_per_s,
    }
    return make_point(sample.time, values)
