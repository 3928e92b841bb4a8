"""Three status files that other programs poll during training, with the names and fields of the H2Q-Evo trainer."""

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

MIN_EFFICIENCY = 0.8
"""Streaming efficiency below which data loading is reported as an issue."""
LOW_DISK_BYTES = 1 << 30
_WARNINGS = 5
_GB = 1 << 30


@dataclass(frozen=True)
class StatusFigures:
    """The figures of the files. Shares are 0 to 1; None while unknown."""

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
    """Share of all cores of the machine, 0 to 100."""
    efficiency: float | None
    batches: int
    warnings: tuple[str, ...]
    machine: MachineSample


class StatusFiles:
    """Maintains the files of one run: `update` with every event; `figures` and `write` periodically and at the end."""

    def __init__(self, ws: Workspace, run_id: str, *, load: Callable[[], float] | None = None) -> None:
        self._folder = ws.status
        self._run_id = run_id
        self._probes = MachineProbes(ws.root)
        self._load = load or ProcessTreeCpu().sample
        self._phases: dict[str, Step] = {}
        self._warnings: deque[str] = deque(maxlen=_WARNINGS)

    def update(self, event: Event) -> None:
        """Applies one event."""
        if isinstance(event, Step):
            self._phases[event.phase] = event
            return
        level, text = describe(event) or ("info", "")
        refused = isinstance(event, CommandHandled)
        if level in ("warning", "error") and not refused and text not in self._warnings:
            self._warnings.append(text)

    def figures(self, view: RunView, limit_mb: float, now: float) -> StatusFigures:
        """The current figures."""
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

    def write(self, figures: StatusFigures) -> None:
        """Replaces the three files, durably at the end of the run. A full disk leaves the old ones."""
        write = files.write_bytes_unsynced if figures.alive else files.write_bytes
        for name, content in (
            (STREAMING, streaming_status),
            (STATUS, engine_status),
            (REPORT, engine_report),
        ):
            # msgspec writes NaN and infinities as null.
            data = msgspec.json.format(msgspec.json.encode(content(figures)), indent=2) + b"\n"
            with contextlib.suppress(OSError):
                write(self._folder / name, data)


def streaming_status(figures: StatusFigures) -> dict[str, Any]:
    """`mac_mini_streaming_status.json`."""
    return {
        "timestamp": _stamp(figures.now),
        "training_active": figures.training,
        "current_step": figures.step,
        "best_loss": figures.best_loss,
        "memory_usage_mb": figures.memory_mb,
        "cpu_usage_percent": figures.cpu_percent,
        "streaming_efficiency": None if figures.efficiency is None else round(figures.efficiency, 4),
        "data_chunks_processed": figures.batches,
        "run_id": figures.run_id,
        "pid": figures.pid,
    }


def engine_status(figures: StatusFigures) -> dict[str, Any]:
    """`agi_mac_mini_status.json`."""
    content = streaming_status(figures)
    content.pop("data_chunks_processed")
    return {
        "timestamp": content.pop("timestamp"),
        "streaming_running": figures.alive,
        **content,
        "issues": issues(figures),
        "platform": _platform(),
        "memory_limit": _gigabytes(figures.limit_mb / 1024),
        "status": _status_text(figures),
    }


def engine_report(figures: StatusFigures) -> dict[str, Any]:
    """`agi_mac_mini_report.json`; after the end of the run with `shutdown_time` and the outcome."""
    limit = figures.limit_mb / 1024
    machine = figures.machine
    cores = machine.cpu_percent
    content = {
        "timestamp": _stamp(figures.now),
        "platform": _platform(),
        "memory_config": _gigabytes(machine.memory_total / _GB) if machine.memory_total else None,
        "optimization": f"Streaming Training with {_gigabytes(limit)} Memory Limit",
        "components": {
            "streaming_trainer": {
                "running": figures.alive,
                "training_active": figures.training,
                "current_step": figures.step,
                "best_loss": figures.best_loss,
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
                "streaming_status": streaming_status(figures),
                "system_health": {"healthy": not issues(figures), "issues": issues(figures)},
            },
        },
        "status": _status_text(figures),
        "run_id": figures.run_id,
        "outcome": str(figures.status),
    }
    return content if figures.alive else {**content, "shutdown_time": _stamp(figures.now)}


def issues(figures: StatusFigures) -> list[str]:
    """Problems for the user, one sentence each; empty without any."""
    problems = []
    if figures.memory_mb is not None and figures.limit_mb > 0 and figures.memory_mb > figures.limit_mb:
        problems.append(
            _("memory in use is above the budget: {used:,.0f} of {limit:,.0f} MB").format(
                used=figures.memory_mb, limit=figures.limit_mb
            )
        )
    if figures.efficiency is not None and figures.efficiency < MIN_EFFICIENCY:
        problems.append(
            _("{share:.0f} % of the time is spent waiting for data").format(
                share=100 * (1 - figures.efficiency)
            )
        )
    if figures.machine.disk_free is not None and figures.machine.disk_free < LOW_DISK_BYTES:
        problems.append(
            _("the disk is almost full: {free:,.0f} MB left").format(free=figures.machine.disk_free / 2**20)
        )
    return [*problems, *figures.warnings]


def _status_text(figures: StatusFigures) -> str:
    return str(figures.status) if figures.alive else "shutdown"


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat()


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def _gigabytes(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") + "GB"


def _megabytes(value: int | None) -> float | None:
    return None if value is None else round(value / 2**20, 1)
