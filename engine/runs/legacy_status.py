"""The three status files that other programs poll while a training run lives: names and fields of the earlier
Mac Mini trainer, with figures of the run itself."""

from __future__ import annotations

import contextlib
import os
import platform
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from engine.core import files
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.machine.cpu import ProcessTreeCpu
from engine.machine.probes import MachineProbes, MachineSample
from engine.runs.event_text import describe
from engine.runs.events import CommandHandled, Event, RunStatus, Step
from engine.runs.view import RunView

STREAMING = "mac_mini_streaming_status.json"
STATUS = "agi_mac_mini_status.json"
REPORT = "agi_mac_mini_report.json"

SLOW_DATA = 0.8
"""Streaming efficiency below which waiting for data is an issue."""
LITTLE_DISK = 1 << 30
_WARNINGS = 5
_GB = 1 << 30


@dataclass(frozen=True)
class StatusFigures:
    """What the files say. Shares are 0 to 1, None for what nothing is known of yet."""

    now: float
    run_id: str
    pid: int
    status: RunStatus
    alive: bool
    training: bool
    step: int
    best_loss: float | None
    memory_mb: float | None
    limit_mb: float
    cpu_percent: float
    """Of all cores of the machine together, 0 to 100."""
    efficiency: float | None
    batches: int
    warnings: tuple[str, ...]
    machine: MachineSample


class StatusFiles:
    """Keeps the files of one run. `see` every record; `facts` and `write` every two seconds and at the end."""

    def __init__(self, ws: Workspace, run_id: str, *, load: Callable[[], float] | None = None) -> None:
        self._folder = ws.status
        self._run_id = run_id
        self._probes = MachineProbes(ws.root)
        self._load = load or ProcessTreeCpu().sample
        self._phases: dict[str, Step] = {}
        self._warnings: deque[str] = deque(maxlen=_WARNINGS)

    def see(self, event: Event) -> None:
        """Takes in what the files tell of a record."""
        if isinstance(event, Step):
            self._phases[event.phase] = event
            return
        level, text = describe(event) or ("info", "")
        refused = isinstance(event, CommandHandled)
        if level in ("warning", "error") and not refused and text not in self._warnings:
            self._warnings.append(text)

    def facts(self, view: RunView, limit_mb: float, now: float) -> StatusFigures:
        """The figures as they stand."""
        steps = self._phases.values()
        wall = sum(step.wall_s for step in steps)
        waited = sum(step.waited_s for step in steps)
        stage = next((stage for stage in view.stages if stage.name == view.phase), None)
        return StatusFigures(
            now=now,
            run_id=self._run_id,
            pid=os.getpid(),
            status=view.status,
            alive=not view.status.over,
            training=view.status is RunStatus.RUNNING and stage is not None and stage.state == "started",
            step=view.step,
            best_loss=view.best_loss,
            memory_mb=view.memory.used_mb if view.memory else None,
            limit_mb=limit_mb,
            cpu_percent=self._load(),
            efficiency=max(0.0, 1.0 - waited / wall) if wall > 0 else None,
            batches=sum(step.draws for step in steps),
            warnings=tuple(self._warnings),
            machine=self._probes.sample(),
        )

    def write(self, facts: StatusFigures) -> None:
        """Replaces the three files; at the end of the run durably. A full disk leaves the ones before."""
        put = files.write_bytes_unsynced if facts.alive else files.write_bytes
        for name, content in (
            (STREAMING, streaming_status),
            (STATUS, engine_status),
            (REPORT, engine_report),
        ):
            # msgspec writes NaN and infinities as null.
            data = msgspec.json.format(msgspec.json.encode(content(facts)), indent=2) + b"\n"
            with contextlib.suppress(OSError):
                put(self._folder / name, data)


def streaming_status(facts: StatusFigures) -> dict[str, Any]:
    """`mac_mini_streaming_status.json`."""
    return {
        "timestamp": _stamp(facts.now),
        "training_active": facts.training,
        "current_step": facts.step,
        "best_loss": facts.best_loss,
        "memory_usage_mb": facts.memory_mb,
        "cpu_usage_percent": facts.cpu_percent,
        "streaming_efficiency": None if facts.efficiency is None else round(facts.efficiency, 4),
        "data_chunks_processed": facts.batches,
        "run_id": facts.run_id,
        "pid": facts.pid,
    }


def engine_status(facts: StatusFigures) -> dict[str, Any]:
    """`agi_mac_mini_status.json`."""
    told = streaming_status(facts)
    told.pop("data_chunks_processed")
    return {
        "timestamp": told.pop("timestamp"),
        "streaming_running": facts.alive,
        **told,
        "issues": issues(facts),
        "platform": _platform(),
        "memory_limit": _gigabytes(facts.limit_mb / 1024),
        "status": _word(facts),
    }


def engine_report(facts: StatusFigures) -> dict[str, Any]:
    """`agi_mac_mini_report.json`; when the run has ended with `shutdown_time` and how it ended."""
    limit = facts.limit_mb / 1024
    machine = facts.machine
    cores = machine.cpu_percent
    told = {
        "timestamp": _stamp(facts.now),
        "platform": _platform(),
        "memory_config": _gigabytes(machine.memory_total / _GB) if machine.memory_total else None,
        "optimization": f"Streaming Training with {_gigabytes(limit)} Memory Limit",
        "components": {
            "streaming_trainer": {
                "running": facts.alive,
                "training_active": facts.training,
                "current_step": facts.step,
                "best_loss": facts.best_loss,
                "memory_limit_gb": round(limit, 2),
            },
            "health_monitor": {
                "realtime_stats": {
                    "cpu_percent": round(sum(cores) / len(cores), 1) if cores else None,
                    "memory_used_mb": _megabytes(machine.memory_used),
                    "memory_total_mb": _megabytes(machine.memory_total),
                    "disk_free_mb": _megabytes(machine.disk_free),
                    "temperature_c": machine.temperature_c,
                },
                "streaming_status": streaming_status(facts),
                "system_health": {"healthy": not issues(facts), "issues": issues(facts)},
            },
        },
        "status": _word(facts),
        "run_id": facts.run_id,
        "outcome": str(facts.status),
    }
    return told if facts.alive else {**told, "shutdown_time": _stamp(facts.now)}


def issues(facts: StatusFigures) -> list[str]:
    """What a person should know, each one sentence; empty when all is well."""
    found = []
    if facts.memory_mb is not None and facts.limit_mb > 0 and facts.memory_mb > facts.limit_mb:
        found.append(
            _("memory in use is above the budget: {used:,.0f} of {limit:,.0f} MB").format(
                used=facts.memory_mb, limit=facts.limit_mb
            )
        )
    if facts.efficiency is not None and facts.efficiency < SLOW_DATA:
        found.append(
            _("{share:.0f} % of the time is spent waiting for data").format(
                share=100 * (1 - facts.efficiency)
            )
        )
    if facts.machine.disk_free is not None and facts.machine.disk_free < LITTLE_DISK:
        found.append(
            _("the disk is almost full: {free:,.0f} MB left").format(free=facts.machine.disk_free / 2**20)
        )
    return [*found, *facts.warnings]


def _word(facts: StatusFigures) -> str:
    return str(facts.status) if facts.alive else "shutdown"


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat()


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def _gigabytes(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") + "GB"


def _megabytes(value: int | None) -> float | None:
    return None if value is None else round(value / 2**20, 1)
