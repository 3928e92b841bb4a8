"""The table of the rules: how much each matters, and how long it must hold before it is an alert."""

from __future__ import annotations

from dataclasses import dataclass

from engine.alerts.readings import AlertLevel

CLEAR_READINGS = 2
"""Good readings in a row that end an alert."""


@dataclass(frozen=True)
class AlertRule:
    """One rule.

    Attributes:
        id: the part before the dot says what it is about, "run" or "machine".
        level: unless the observation carries its own.
        hold_s: seconds that it must hold without a good reading.
    """

    id: str
    level: AlertLevel
    hold_s: float = 0.0


RUN_FAILED = AlertRule("run.failed", AlertLevel.ERROR)
RUN_DIED = AlertRule("run.died", AlertLevel.CRITICAL)
RUN_SILENT = AlertRule("run.silent", AlertLevel.ERROR)
RUN_STALLED = AlertRule("run.stalled", AlertLevel.ERROR)
RUN_DIVERGED = AlertRule("run.diverged", AlertLevel.ERROR)
RUN_NOT_FINITE = AlertRule("run.not_finite", AlertLevel.ERROR)
RUN_LOSS_RISES = AlertRule("run.loss_rises", AlertLevel.WARNING, 40.0)
RUN_CHECKPOINT = AlertRule("run.checkpoint", AlertLevel.ERROR)
RUN_BUDGET = AlertRule("run.budget", AlertLevel.WARNING, 20.0)
RUN_PAUSED = AlertRule("run.paused", AlertLevel.WARNING, 20.0)
RUN_SLOW = AlertRule("run.slow", AlertLevel.WARNING, 30.0)
RUN_FINISHED = AlertRule("run.finished", AlertLevel.INFO)
RUN_VERDICT = AlertRule("run.verdict", AlertLevel.INFO)
MACHINE_CPU = AlertRule("machine.cpu", AlertLevel.WARNING, 40.0)
MACHINE_MEMORY = AlertRule("machine.memory", AlertLevel.WARNING, 20.0)
MACHINE_SWAP = AlertRule("machine.swap", AlertLevel.WARNING, 20.0)
MACHINE_OOM = AlertRule("machine.oom", AlertLevel.CRITICAL)
MACHINE_DISK = AlertRule("machine.disk", AlertLevel.ERROR)
MACHINE_DISK_SOON = AlertRule("machine.disk_soon", AlertLevel.WARNING, 20.0)
MACHINE_HEAT = AlertRule("machine.heat", AlertLevel.WARNING, 20.0)
MACHINE_BATTERY = AlertRule("machine.battery", AlertLevel.WARNING, 10.0)
MACHINE_OLLAMA = AlertRule("machine.ollama", AlertLevel.WARNING, 15.0)

RULES: dict[str, AlertRule] = {
    rule.id: rule
    for rule in (
        RUN_FAILED,
        RUN_DIED,
        RUN_SILENT,
        RUN_STALLED,
        RUN_DIVERGED,
        RUN_NOT_FINITE,
        RUN_LOSS_RISES,
        RUN_CHECKPOINT,
        RUN_BUDGET,
        RUN_PAUSED,
        RUN_SLOW,
        RUN_FINISHED,
        RUN_VERDICT,
        MACHINE_CPU,
        MACHINE_MEMORY,
        MACHINE_SWAP,
        MACHINE_OOM,
        MACHINE_DISK,
        MACHINE_DISK_SOON,
        MACHINE_HEAT,
        MACHINE_BATTERY,
        MACHINE_OLLAMA,
    )
}
