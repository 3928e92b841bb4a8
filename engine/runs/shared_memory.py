"""The memory budget of a workspace is one: its runs and its inference service share it. What each of them takes.

A training keeps what the service takes free, up to a quarter of the budget; the service loads only what fits beside the
runs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from engine.core.errors import H2QError
from engine.core.paths import Workspace
from engine.machine.process_memory import MB, tree_memory
from engine.runs import lock
from engine.runs.rundir import RunDir, summarise, training_run_id

TRAINING_SHARE = 3 / 4
"""Share of the budget that a training is sized for; the service and other programs may use the rest."""


def service_lock(ws: Workspace) -> Path:
    """Locked by the inference service of a workspace while it runs; it holds the id of its process."""
    return ws.runtime / "inference.lock"


def write_service_pid(descriptor: int) -> None:
    """Writes the id of this process into the lock that it holds."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def service_mb(ws: Workspace) -> float:
    """Resident MB of the inference service and its processes of llama.cpp; 0 when it does not run."""
    path = service_lock(ws)
    try:
        if not lock.is_locked(path):
            return 0.0
        return tree_memory(int(path.read_text(encoding="ascii"))) / MB
    except (OSError, ValueError, H2QError, psutil.Error):
        return 0.0


def runs_mb(ws: Workspace, budget_mb: float) -> float:
    """MB of `budget_mb` that the runs of a workspace take: what each has used at most, and the share of a training."""
    training = training_run_id(ws)
    try:
        folders = [entry for entry in ws.runs.iterdir() if not entry.name.startswith(".")]
    except OSError:
        folders = []
    total = 0.0
    for run in map(RunDir, folders):
        with suppress(H2QError):
            if run.alive():
                planned = TRAINING_SHARE * budget_mb if run.run_id == training else 0.0
                total += max(planned, summarise(run).peak_memory_mb or 0.0)
    return total
