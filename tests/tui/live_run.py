"""A run as its engine would write it: real folder, real lock, real journal, no training."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.core.paths import Workspace
from engine.runs import lock
from engine.runs.events import Event, Finished, MemoryUsage, RunStatus, StageChanged, Started, Step
from engine.runs.journal import JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.launch import create_run
from engine.runs.rundir import RunDir
from engine.runs.spec import RunSpec, make_spec


class LiveRun:
    """Holds the run's lock until `end`."""

    def __init__(
        self,
        ws: Workspace,
        *,
        steps: int = 200,
        now: float | None = None,
        clock: Callable[[], float] = time.time,
        spec: RunSpec | None = None,
    ) -> None:
        asked = spec or make_spec(ws.root, TrainParams(mode=TrainMode.NATIVE), now=now)
        self.dir: RunDir = create_run(ws, asked)
        fd = lock.acquire(self.dir.lock_path)
        assert fd is not None
        self._fd = fd
        self._journal = JournalWriter(self.dir.events_path, clock=clock)
        self.steps = steps
        self.write(Started(pid=os.getpid() if clock is time.time else 1, program="test"))
        self.write(StageChanged(name="native", state="started", index=1, total=2))

    def write(self, event: Event) -> None:
        self._journal.write(event)

    def step(self, number: int, *, speed: float = 28_400.0) -> None:
        """One optimizer step with a loss that falls and trembles."""
        loss = 1.4 + 1.2 * math.exp(-5 * number / self.steps) + 0.03 * math.sin(number * 7.0)
        rate = 0.02 * 0.5 * (1 + math.cos(math.pi * number / self.steps))
        self.write(
            Step(
                phase="native",
                step=number,
                max_steps=self.steps,
                loss=loss,
                lr=rate,
                tokens=number * 8192,
                tokens_per_s=speed,
                eta_s=(self.steps - number) / 4,
            )
        )

    def memory(self, used_mb: float = 2100.0) -> None:
        self.write(MemoryUsage(used_mb=used_mb, peak_mb=2200.0, budget_mb=4096.0, reason="max_memory_gb"))

    def die(self) -> None:
        """The engine is gone without a word."""
        os.close(self._fd)
        self._journal.close()

    def end(self, status: RunStatus = RunStatus.DONE, error: str = "") -> None:
        self.write(Finished(status=status, exit_code=0 if status is RunStatus.DONE else 5, error=error))
        self.die()


@contextmanager
def live_run(ws: Workspace, *, steps: int = 200, done: int = 60) -> Iterator[LiveRun]:
    """A run that goes on until the block ends."""
    run = LiveRun(ws, steps=steps)
    run.memory()
    for number in range(1, done + 1):
        run.step(number)
    try:
        yield run
    finally:
        run.end()
