"""One run as the watcher follows it: a reducer of its journal to a `RunReading`. It reads no clock and no file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any, ClassVar

from engine.alerts.machine_rules import SLOWER
from engine.alerts.readings import RunReading
from engine.runs import events as e
from engine.runs.events import JournalRecord, RunStatus

SPEED_EVERY_S = 5.0
"""Between two readings of the speed."""
NOW_S = 30.0
"""The present speed is the median of so many seconds."""
MINUTES = 120
"""The usual speed is the second highest of the medians of so many minutes: what the machine does when nothing disturbs it, also
long after something began to. What lasts longer than that is usual."""
LOSSES_NOW = 10
_STEPS_KEPT = 64
_ROLLBACK_WINDOW_S = 3600.0
CALM_STEPS = 200
"""Steps after a recovery without another one that make it a thing of the past."""


class RunWatch:
    """The state of one run. Apply every record in order."""

    def __init__(self, run_id: str, *, kind: str = "", label: str = "", heartbeat_s: float = 2.0) -> None:
        self.run_id, self.kind, self.label, self.heartbeat_s = run_id, kind, label, heartbeat_s
        self.status, self.reason = RunStatus.QUEUED, ""
        self.status_at: float | None = None
        self.started_at: float | None = None
        self.updated_at: float | None = None
        self.progressed_at: float | None = None
        self.pid: int | None = None
        self.stage, self.phase = "", ""
        self.step, self.max_steps = 0, 0
        self.log: deque[str] = deque(maxlen=12)
        self._not_finite = 0
        self._losses: deque[float] = deque(maxlen=LOSSES_NOW)
        self._best: float | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=_STEPS_KEPT)
        self._speeds: deque[tuple[float, float]] = deque()
        self._minute: list[tuple[float, float]] = []
        self._minutes: deque[float] = deque(maxlen=MINUTES)
        self._slow_since: float | None = None
        self._recovery: tuple[str, int] | None = None
        self._rollbacks: deque[float] = deque(maxlen=_STEPS_KEPT)
        self._checkpoint_error = ""
        self._memory: e.MemoryUsage | None = None
        self._finished: e.Finished | None = None
        self._finished_at: float | None = None
        self._verdict: e.VerdictGiven | None = None
        self._verdict_at: float | None = None
        self._promoted = ""

    def apply(self, record: JournalRecord) -> None:
        """Applies one record."""
        self.updated_at = record.t
        handler = self._HANDLERS.get(type(record.event))
        if handler is not None:
            handler(self, record.event, record.t)

    def reading(
        self,
        now: float,
        *,
        alive: bool,
        awake_since: float = 0.0,
        fault: str = "",
        log_tail: tuple[str, ...] = (),
        resumed: bool = False,
    ) -> RunReading:
        """The run at `now`; what is not in the journal is given."""
        speed = self._speed(now)
        finished, memory = self._finished, self._memory
        step, recovery = self.step, self._recovery
        return RunReading(
            run_id=self.run_id,
            kind=self.kind,
            label=self.label,
            alive=alive,
            status=self.status,
            reason=self.reason,
            status_at=self.status_at,
            updated_at=self.updated_at,
            heartbeat_s=self.heartbeat_s,
            awake_since=awake_since,
            stage=self.stage,
            phase=self.phase,
            step=step,
            max_steps=self.max_steps,
            progressed_at=self.progressed_at,
            usual_step_s=self._usual_step_s(),
            tokens_per_s=speed,
            usual_tokens_per_s=self._usual_speed() if speed is not None else None,
            slow_since=self._slow_since,
            loss=median(self._losses) if len(self._losses) == LOSSES_NOW else None,
            best_loss=self._best,
            not_finite=self._not_finite,
            divergence=recovery[0] if recovery is not None and step < recovery[1] + CALM_STEPS else "",
            rollbacks=sum(now - t < _ROLLBACK_WINDOW_S for t in self._rollbacks),
            checkpoint_error=self._checkpoint_error,
            used_mb=memory.used_mb if memory else None,
            budget_mb=memory.budget_mb if memory else None,
            finished_at=self._finished_at,
            error=finished.error if finished else "",
            hint=finished.hint if finished else "",
            fault=fault,
            decision=self._verdict.decision if self._verdict else "",
            verdict_at=self._verdict_at,
            verdict_text=self._verdict.sentence if self._verdict else "",
            promoted=self._promoted,
            log_tail=log_tail,
            resumed=resumed,
        )

    def _speed(self, now: float) -> float | None:
        """Tokens per second now; None while it does not train."""
        recent = [value for t, value in self._speeds if now - t <= NOW_S]
        return median(recent) if recent and self.status is RunStatus.RUNNING else None

    def _usual_speed(self) -> float | None:
        """Tokens per second of this phase when it runs well; None before its first two minutes."""
        return sorted(self._minutes)[-2] if len(self._minutes) >= 2 else None

    def _note_speed(self, t: float, value: float) -> None:
        if self._speeds and t - self._speeds[-1][0] < SPEED_EVERY_S:
            return
        self._speeds.append((t, value))
        while t - self._speeds[0][0] > 2 * NOW_S:
            self._speeds.popleft()
        if self._minute and t - self._minute[0][0] >= 60.0:
            self._minutes.append(median(speed for _t, speed in self._minute))
            self._minute.clear()
        self._minute.append((t, value))
        usual = self._usual_speed()
        if usual is None or value >= SLOWER * usual:
            self._slow_since = None
        elif self._slow_since is None:
            self._slow_since = t

    def _usual_step_s(self) -> float | None:
        if len(self._steps) < 2:
            return None
        pairs = zip(self._steps, list(self._steps)[1:], strict=False)
        return median((t1 - t0) / max(1, n1 - n0) for (t0, n0), (t1, n1) in pairs)

    def _on_started(self, event: e.Started, t: float) -> None:
        self.pid, self.started_at = event.pid, self.started_at or t
        self._set_status(RunStatus.RUNNING, "", t)
        self._finished = self._finished_at = None
        self._begin_phase("")
        self.progressed_at = t

    def _on_status(self, event: e.StatusChanged, t: float) -> None:
        self._set_status(event.status, event.reason, t)
        self._forget_speed()

    def _forget_speed(self) -> None:
        """What was measured before a pause says nothing about the present."""
        self._speeds.clear()
        self._minute.clear()
        self._slow_since = None

    def _set_status(self, status: RunStatus, reason: str, t: float) -> None:
        self.status, self.reason, self.status_at = status, reason, t

    def _on_stage(self, event: e.StageChanged, t: float) -> None:
        if event.state == "started":
            self.stage = event.name
            self._begin_phase("")
        self.progressed_at = t

    def _begin_phase(self, phase: str) -> None:
        """What is usual in one phase is not in the next."""
        self.phase = phase
        self._losses.clear()
        self._steps.clear()
        self._forget_speed()
        self._minutes.clear()
        self._best, self._not_finite, self._recovery = None, 0, None
        self._rollbacks.clear()

    def _on_step(self, event: e.Step, t: float) -> None:
        if event.phase != self.phase:
            self._begin_phase(event.phase)
        if event.step != self.step or self.progressed_at is None:
            self.progressed_at = t
        self.step, self.max_steps = event.step, event.max_steps
        self._not_finite = 0 if event.finite else self._not_finite + 1
        if event.loss is not None:
            self._losses.append(event.loss)
            if len(self._losses) == LOSSES_NOW:
                here = median(self._losses)
                self._best = here if self._best is None else min(self._best, here)
        if not self._steps or t > self._steps[-1][0]:
            self._steps.append((t, event.step))
        self._note_speed(t, event.tokens_per_s)

    def _on_recovery(self, event: e.RecoveryAction, t: float) -> None:
        if event.cause == "not finite":
            self._not_finite += 1
        if event.action == "returned":
            self._rollbacks.append(t)
            self.step = event.back_to if event.back_to is not None else self.step
        if event.action in ("stopped", "returned"):
            self._recovery = (event.action, self.step)

    def _on_checkpoint(self, event: e.CheckpointWritten, t: float) -> None:
        self._checkpoint_error, self.progressed_at = "", t

    def _on_checkpoint_failed(self, event: e.CheckpointFailed, _t: float) -> None:
        self._checkpoint_error = event.reason or "?"

    def _on_memory(self, event: e.MemoryUsage, _t: float) -> None:
        self._memory = event

    def _on_progress(self, _event: e.Event, t: float) -> None:
        self.progressed_at = t

    def _on_log(self, event: e.Log, _t: float) -> None:
        self.log.append(event.text)

    def _on_verdict(self, event: e.VerdictGiven, t: float) -> None:
        self._verdict, self._verdict_at, self.progressed_at = event, t, t

    def _on_promoted(self, event: e.Promoted, _t: float) -> None:
        self._promoted = event.name

    def _on_finished(self, event: e.Finished, t: float) -> None:
        self._finished, self._finished_at = event, t
        self._set_status(event.status, "", t)

    _HANDLERS: ClassVar[dict[type[e.Event], Callable[[RunWatch, Any, float], None]]] = {
        e.Started: _on_started,
        e.StatusChanged: _on_status,
        e.StageChanged: _on_stage,
        e.Step: _on_step,
        e.RecoveryAction: _on_recovery,
        e.CheckpointWritten: _on_checkpoint,
        e.CheckpointFailed: _on_checkpoint_failed,
        e.MemoryUsage: _on_memory,
        e.Progress: _on_progress,
        e.Evaluated: _on_progress,
        e.EpochDone: _on_progress,
        e.EvolutionCycle: _on_progress,
        e.Log: _on_log,
        e.VerdictGiven: _on_verdict,
        e.Promoted: _on_promoted,
        e.Finished: _on_finished,
    }
