"""The figures that leave the program, by name: of the machine and of runs. Never text that a person wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from engine.machine.probes import MachineSample
from engine.runs.events import RunStatus
from engine.sinks.run_feed import FedRun

_MB = 1024 * 1024


@dataclass(frozen=True)
class Metric:
    """A gauge: its name by the rules of Prometheus, what it says, and the names of its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


class Figure(NamedTuple):
    """The value of a metric now, and its labels in the order of `Metric.labels`."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


_RUN = ("run", "kind")

CPU = Metric("h2q_cpu_percent", "Busy share of a core since the last reading.", ("core",))
LOAD = Metric("h2q_load1", "Load average of a minute.")
MEMORY_TOTAL = Metric("h2q_memory_total_bytes", "Memory of the machine.")
MEMORY_USED = Metric("h2q_memory_used_bytes", "Memory that cannot be allocated without swapping.")
SWAP_TOTAL = Metric("h2q_swap_total_bytes", "Swap of the machine.")
SWAP_USED = Metric("h2q_swap_used_bytes", "Swap in use.")
DISK_FREE = Metric("h2q_disk_free_bytes", "Free space on the disk of the workspace.")
DISK_TOTAL = Metric("h2q_disk_total_bytes", "Size of the disk of the workspace.")
DISK_FULL = Metric("h2q_disk_full_in_seconds", "Time until that disk is full at the present rate.")
TEMPERATURE = Metric("h2q_temperature_celsius", "Temperature of the processor.")
RUN_ALIVE = Metric("h2q_run_alive", "1 while a process works on the run.", _RUN)
RUN_STATUS = Metric("h2q_run_status", "1 for the status that the run has.", (*_RUN, "status"))
RUN_STEP = Metric("h2q_run_step", "Step of the phase.", (*_RUN, "phase"))
RUN_MAX_STEPS = Metric("h2q_run_max_steps", "Steps of the phase in all.", (*_RUN, "phase"))
RUN_LOSS = Metric("h2q_run_loss", "Training loss of the newest step.", (*_RUN, "phase"))
RUN_BEST_LOSS = Metric("h2q_run_best_loss", "Lowest training loss of the phase.", (*_RUN, "phase"))
RUN_EVAL_LOSS = Metric("h2q_run_eval_loss", "Loss of the newest evaluation.", (*_RUN, "phase", "name"))
RUN_LR = Metric("h2q_run_learning_rate", "Learning rate of the newest step.", (*_RUN, "phase"))
RUN_GRAD_NORM = Metric("h2q_run_gradient_norm", "Norm of the gradient before clipping.", (*_RUN, "phase"))
RUN_TOKENS = Metric("h2q_run_tokens", "Tokens trained in the phase.", (*_RUN, "phase"))
RUN_SPEED = Metric("h2q_run_tokens_per_second", "Tokens trained per second.", (*_RUN, "phase"))
RUN_STREAMING = Metric(
    "h2q_run_streaming_efficiency_ratio", "Share of the time not spent waiting for data.", _RUN
)
RUN_MEMORY = Metric("h2q_run_memory_bytes", "Memory of the run.", _RUN)
RUN_PEAK = Metric("h2q_run_peak_memory_bytes", "Most memory that the run has had.", _RUN)
RUN_BUDGET = Metric("h2q_run_memory_budget_bytes", "Memory that the run may have.", _RUN)
RUN_DONE = Metric("h2q_run_done_ratio", "Share of the run's work that is done.", _RUN)
RUN_LEFT = Metric("h2q_run_left_seconds", "Time to the end of the run.", _RUN)

METRICS: tuple[Metric, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Metric))
"""All of them, in their order."""


def machine_figures(sample: MachineSample) -> Iterator[Figure]:
    """The figures of the machine; what it does not tell is left out."""
    for core, share in enumerate(sample.cpu_percent or ()):
        yield Figure(CPU, share, (str(core),))
    values = {
        LOAD: sample.load[0] if sample.load is not None else None,
        MEMORY_TOTAL: sample.memory_total,
        MEMORY_USED: sample.memory_used,
        SWAP_TOTAL: sample.swap_total,
        SWAP_USED: sample.swap_used,
        DISK_FREE: sample.disk_free,
        DISK_TOTAL: sample.disk_total,
        DISK_FULL: sample.disk_full_in_s,
        TEMPERATURE: sample.temperature_c,
    }
    yield from _known(values, ())


def run_figures(followed: FedRun) -> Iterator[Figure]:
    """The figures of a run; what it has not come to is left out."""
    view, spec = followed.view, followed.run.spec
    run = (spec.run_id, str(spec.kind))
    summary = view.summary(followed.alive)
    for status in RunStatus:
        yield Figure(RUN_STATUS, float(status is summary.status), (*run, str(status)))
    memory = view.memory
    of_run = {
        RUN_ALIVE: float(followed.alive),
        RUN_STREAMING: summary.streaming_efficiency,
        RUN_MEMORY: memory.used_mb * _MB if memory is not None else None,
        RUN_PEAK: view.peak_memory_mb * _MB if view.peak_memory_mb is not None else None,
        RUN_BUDGET: memory.budget_mb * _MB if memory is not None else None,
        RUN_DONE: summary.share,
        RUN_LEFT: summary.left_s,
    }
    yield from _known(of_run, run)
    if not view.phase:
        return
    phase = (*run, view.phase)
    of_phase = {
        RUN_STEP: view.step,
        RUN_MAX_STEPS: view.max_steps,
        RUN_LOSS: view.loss,
        RUN_BEST_LOSS: view.best_loss,
        RUN_LR: view.lr,
        RUN_GRAD_NORM: view.grad_norm,
        RUN_TOKENS: view.tokens,
        RUN_SPEED: view.tokens_per_s,
    }
    yield from _known(of_phase, phase)
    for name in view.eval_names(view.phase):
        losses = view.series(view.phase, f"eval:{name}").y
        if losses:
            yield Figure(RUN_EVAL_LOSS, losses[-1], (*phase, name))


def _known(values: dict[Metric, float | None], labels: tuple[str, ...]) -> Iterable[Figure]:
    return (
        Figure(metric, float(value), labels)
        for metric, value in values.items()
        if value is not None and not math.isnan(value)
    )
