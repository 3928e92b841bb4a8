"""What `/api/latest-data` of the RL-Swarm monitor answers, with its fields and its order, from readings.

That monitor drew rewards, ranks and participants at random. Here a reward is minus the training loss of a step, so
that more is better; this machine is the only participant; nothing is earned, so that the amounts of money are null.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.machine.probes import MachineSample
from engine.runs.events import JournalRecord, Step
from engine.runs.journal import JournalReader
from engine.runs.kinds import KINDS
from engine.runs.rundir import RunDir, list_runs

REWARDS = 50
"""Newest steps in an answer."""
PERFORMANCE = 100
"""Newest samples of the machine in an answer."""
_TIME = "%Y-%m-%d %H:%M:%S"


def performance_row(sample: MachineSample, *, training: bool) -> dict[str, Any] | None:
    """One row of `performance`: shares in percent, `memory_free` whole; None while the machine tells too little."""
    if not sample.cpu_percent or sample.memory_total is None or sample.memory_used is None:
        return None
    used = round(100 * sample.memory_used / sample.memory_total)
    return {
        "timestamp": local_time(_TIME, sample.time),
        "cpu_usage": round(math.fsum(sample.cpu_percent) / len(sample.cpu_percent), 2),
        "memory_usage": used,
        "memory_free": 100 - used,
        "training_active": training,
    }


def reward_row(t: float, step: Step, stage: int) -> dict[str, Any] | None:
    """One row of `rewards` for a step at `t`; `stage` counts the phases of the run from 0. None without a loss."""
    if step.loss is None or not math.isfinite(step.loss):
        return None
    return {
        "timestamp": local_time(_TIME, t),
        "round": step.step,
        "stage": stage,
        "reward": -step.loss,
        "rank": 1,
        "participants": 1,
        "reward_cny": None,
        "reward_cny_formatted": "",
        "eth_rate": None,
    }


class RewardReader:
    """The newest steps of the newest training run of a workspace, read on as its journal grows."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._run: RunDir | None = None
        self._start(None)

    def _start(self, run: RunDir | None) -> None:
        self._run = run
        self._reader = JournalReader(run.events_path) if run is not None else None
        self._restarts = 0
        self._phases: list[str] = []
        self._rows: deque[dict[str, Any]] = deque(maxlen=REWARDS)

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """The rows of `rewards`, newest first, and whether that run is alive. Empty without a training run."""
        runs = (run for run in list_runs(self._workspace) if KINDS[run.spec.kind].trains)
        newest = next(runs, None)
        if (newest.run_id if newest else None) != (self._run.run_id if self._run else None):
            self._start(newest)
        if self._run is None or self._reader is None:
            return [], False
        while records := self._reader.poll():
            if self._reader.restarts != self._restarts:
                self._restarts = self._reader.restarts
                self._phases, self._rows = [], deque(maxlen=REWARDS)
            for record in records:
                self._add(record)
        return list(reversed(self._rows)), self._run.alive()

    def _add(self, record: JournalRecord) -> None:
        step = record.event
        if not isinstance(step, Step):
            return
        if step.phase not in self._phases:
            self._phases.append(step.phase)
        row = reward_row(record.t, step, self._phases.index(step.phase))
        if row is not None:
            self._rows.append(row)
