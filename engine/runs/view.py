"""The state of a run, reduced from its events: one pure reducer for the app, the commands and tests."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from engine.core.i18n import _
from engine.runs import events as e
from engine.runs.curve import Annotation, AnnotationKind, MeanSeries, Series
from engine.runs.event_text import (
    cycle_text,
    describe,
    governor_text,
    rank_lost_text,
    recovery_text,
    status_name,
)
from engine.runs.events import JournalRecord, RunStatus
from engine.runs.spec import RunSpec
from engine.runs.work import IdleTime, StageView, stage_seconds, work_done

LOG_LINES = 2000
_HISTORY_LIMIT = 500


@dataclass(frozen=True)
class LogLine:
    """One line of the run's log: seconds since the epoch, level as in `events.Log`, text."""

    t: float
    level: str
    text: str


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of a run for lists, `runs show --json` and `state.json`. Times are seconds since the epoch."""

    id: str
    kind: str
    label: str
    status: RunStatus
    stage: str
    step: int
    max_steps: int
    loss: float | None
    best_loss: float | None
    tokens_per_s: float | None
    memory_mb: float | None
    peak_memory_mb: float | None
    budget_mb: float | None = None
    """Budget for `peak_memory_mb`."""
    streaming_efficiency: float | None = None
    """Share of training time not spent waiting for data, 0 to 1."""
    eta_s: float | None
    created_at: float | None
    started_at: float | None
    finished_at: float | None
    checkpoint: str | None
    error: str
    share: float | None = None
    """Share of the whole run that is done, 0 to 1."""
    left_s: float | None = None
    """Seconds to the end of the whole run."""
    paused_s: float = 0.0
    stage_seconds: dict[str, float] = {}
    """Working seconds of each stage that is done."""
    conversations: int = 0
    """In the training set."""


class RunView:
    """State of one run. Apply every record in order; it never fails and reads no clock and no file."""

    def __init__(self, spec: RunSpec | None = None) -> None:
        self.spec = spec
        self.status = RunStatus.QUEUED
        self.reason = ""
        """Why the run waits, e.g. the run that holds the training lock."""
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.updated_at: float | None = None
        """Time of the last record."""
        self.pid: int | None = None
        self.scope = ""
        self.stages: list[StageView] = []
        self.stage = ""
        self.phase = ""
        self.phases: list[str] = []
        self.step = 0
        self.max_steps = 0
        self.epoch = 0.0
        self.loss: float | None = None
        self.best_loss: float | None = None
        """Lowest loss of the phase."""
        self.lr: float | None = None
        self.peak_lr: float | None = None
        """The highest rate of the phase, or the peak that was set by hand since; the schedule scales it."""
        self.tokens = 0
        self.tokens_per_s: float | None = None
        self.grad_norm: float | None = None
        self.waiting = 0.0
        self._data_wait: dict[str, tuple[float, float]] = {}
        """Of each phase: seconds waited for data, and total seconds."""
        self.eta_s: float | None = None
        """Seconds to the end of the stage, at `eta_at`."""
        self.eta_at: float | None = None
        self.work: dict[str, float] = {}
        """Expected seconds of every stage of the run, in their order; empty when unknown."""
        self.idle = IdleTime()
        self.progress: e.Progress | None = None
        self.memory: e.MemoryUsage | None = None
        self.peak_memory_mb: float | None = None
        self.ranks: list[e.RankHealth] = []
        """The processes of a training with several, as they last reported."""
        self.epochs: list[e.EpochDone] = []
        self.evals: list[e.Evaluated] = []
        self.samples: list[e.ModelSample] = []
        """What the model wrote during the training, in order of time."""
        self.checkpoints: list[e.CheckpointWritten] = []
        self.last_checkpoint: e.CheckpointWritten | None = None
        self.commands: list[e.CommandHandled] = []
        self.annotations: list[Annotation] = []
        """All annotations except checkpoints, in order of arrival."""
        self.checkpoint_annotations: list[Annotation] = []
        self.cycles: list[e.EvolutionCycle] = []
        """Evolution cycles in their current state."""
        self.step_offset = 0
        """Steps on the curve before the current evolution cycle; its own steps are added to them."""
        self.log: deque[LogLine] = deque(maxlen=LOG_LINES)
        self.log_total = 0
        """Number of lines ever logged: shows how many are new although the deque is bounded."""
        self.plan: e.TrainingPlan | None = None
        self.funnel: e.Funnel | None = None
        self.verdict: e.VerdictGiven | None = None
        self.promoted: e.Promoted | None = None
        self.finished: e.Finished | None = None
        self.records = 0
        self.dropped_records = 0
        """Gaps in the sequence numbers: lost to a full disk, or unreadable."""
        self._next_seq = 0
        self._peak_was_set = False
        self._series: dict[tuple[str, str], Series] = {}
        self._means: dict[str, MeanSeries] = {}
        self._step_series: tuple[Series, Series, Series] | None = None

    def series(self, phase: str, name: str) -> Series:
        """A curve: "loss", "lr", "tokens_per_s" or "eval:<name>" over the steps of `phase`; "memory" (MB) over
        seconds since the start of the run, for any phase. Empty without data."""
        return self._series.get(("" if name == "memory" else phase, name)) or Series()

    def loss_means(self, phase: str) -> MeanSeries:
        """The training loss of `phase` in means of neighbouring steps: the smoothed line. Empty without data."""
        return self._means.get(phase) or MeanSeries()

    def eval_names(self, phase: str) -> list[str]:
        """Names of the evaluations of `phase`, in order of arrival."""
        return [name[5:] for owner, name in self._series if owner == phase and name.startswith("eval:")]

    @property
    def streaming_efficiency(self) -> float | None:
        """Share of training time not spent waiting for data, 0 to 1; None before the first step."""
        waited, wall = (
            (sum(column) for column in zip(*self._data_wait.values(), strict=True))
            if self._data_wait
            else (0, 0)
        )
        return max(0.0, 1.0 - waited / wall) if wall > 0 else None

    def apply(self, record: JournalRecord) -> None:
        """Applies one record."""
        if record.seq > self._next_seq:
            self.dropped_records += record.seq - self._next_seq
        self._next_seq = record.seq + 1
        self.records += 1
        self.updated_at = record.t
        event = record.event
        if type(event) is e.Step:
            self._on_step(event)
            return
        handler = self._HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event, record.t)
        words = describe(event)
        if words is not None:
            self.log.append(LogLine(record.t, *words))
            self.log_total += 1

    def summary(self, alive: bool) -> RunSummary:
        """The figures of `runs show`. `alive` is the run's lock: a run without it that did not finish is DEAD."""
        spec, over = self.spec, self.status.over
        work = work_done(self, self.updated_at or 0.0)
        finished = self.finished_at if over or alive else self.updated_at
        return RunSummary(
            id=spec.run_id if spec else "",
            kind=str(spec.kind) if spec else "",
            label=spec.label if spec else "",
            status=self.status if over or alive else RunStatus.DEAD,
            stage=self.stage,
            step=self.step,
            max_steps=self.max_steps,
            loss=self.loss,
            best_loss=self.best_loss,
            tokens_per_s=self.tokens_per_s,
            memory_mb=self.memory.used_mb if self.memory else None,
            peak_memory_mb=self.peak_memory_mb,
            budget_mb=self.memory.budget_mb if self.memory else None,
            streaming_efficiency=self.streaming_efficiency,
            eta_s=self.eta_s if alive and not over else None,
            created_at=spec.created_at if spec else None,
            started_at=self.started_at,
            finished_at=finished,
            checkpoint=self.last_checkpoint.path if self.last_checkpoint else None,
            error=self.finished.error if self.finished else "",
            share=work.share,
            left_s=work.left_s if alive and not over else None,
            paused_s=round(work.paused_s, 1),
            stage_seconds=stage_seconds(self.stages),
            conversations=self.plan.train_conversations if self.plan is not None else 0,
        )

    def _on_step(self, event: e.Step) -> None:
        if event.phase != self.phase or self._step_series is None:
            if event.phase not in self.phases and event.step > 1:
                self._on_resumed(event)
            self._enter_phase(event.phase)
        assert self._step_series is not None
        self.step = step = event.step
        self.max_steps = event.max_steps
        self.epoch = event.epoch
        self.loss = loss = event.loss
        self.lr = event.lr
        if not self._peak_was_set:
            self.peak_lr = max(event.lr, self.peak_lr or 0.0)
        self.tokens = event.tokens
        self.tokens_per_s = event.tokens_per_s
        self.grad_norm = event.grad_norm
        self.waiting = event.waiting
        self._data_wait[event.phase] = (event.waited_s, event.wall_s)
        self._set_eta(event.eta_s)
        step += self.step_offset
        losses, rates, speeds = self._step_series
        if loss is not None:
            if self.best_loss is None or loss < self.best_loss:
                self.best_loss = loss
            losses.append(step, loss)
            self._means.setdefault(event.phase, MeanSeries()).append(step, loss)
        rates.append(step, event.lr)
        speeds.append(step, event.tokens_per_s)

    def _on_resumed(self, event: e.Step) -> None:
        """The first step of a phase is recorded always: one above 1 follows a checkpoint."""
        text = _("resumed from step {step}").format(step=event.step - 1)
        place = self.step_offset + event.step - 1
        _append(
            self.annotations,
            Annotation(event.phase, place, text, AnnotationKind.RESUME, self.updated_at or 0.0),
        )

    def _set_eta(self, eta_s: float | None) -> None:
        self.eta_s, self.eta_at = eta_s, self.updated_at

    def _enter_phase(self, phase: str) -> None:
        if phase not in self.phases:
            self.phases.append(phase)
        self.phase = phase
        self.peak_lr, self._peak_was_set = None, False
        best = self.series(phase, "loss").y
        self.best_loss = min(best) if best else None
        self._step_series = (
            self._own(phase, "loss"),
            self._own(phase, "lr"),
            self._own(phase, "tokens_per_s"),
        )

    def _own(self, phase: str, name: str) -> Series:
        return self._series.setdefault((phase, name), Series())

    def _on_started(self, event: e.Started, t: float) -> None:
        if self.started_at is None:
            self.started_at = t
        self.pid, self.scope = event.pid, event.scope
        self.status, self.reason = RunStatus.RUNNING, ""
        self.idle.status(RunStatus.RUNNING, t)
        self.finished, self.finished_at = None, None

    def _on_status(self, event: e.StatusChanged, t: float) -> None:
        if event.status is RunStatus.PAUSED:
            self._annotate(status_name(event.status), t)
        self.status, self.reason = event.status, event.reason
        self.idle.status(event.status, t)

    def _on_stage(self, event: e.StageChanged, t: float) -> None:
        current = next((stage for stage in self.stages if stage.name == event.name), None)
        if current is None:
            current = StageView(event.name, event.state, event.index, event.total, event.detail, t)
            self.stages.append(current)
            del self.stages[:-_HISTORY_LIMIT]
        elif event.state == "started":
            # A repeated stage, as in the next evolution cycle, becomes the current one.
            self.stages.remove(current)
            self.stages.append(current)
        current.state, current.detail = event.state, event.detail
        current.index, current.total = event.index or current.index, event.total or current.total
        if event.state == "started":
            self.stage, self.progress, self.eta_s = event.name, None, None
            current.started_at, current.ended_at = t, None
            current.idle_before_s = self.idle.seconds(t)
        else:
            current.ended_at = t
            current.idle_s = self.idle.seconds(t) - current.idle_before_s

    def _on_progress(self, event: e.Progress, _t: float) -> None:
        self.progress = event
        self._set_eta(event.eta_s)

    def _on_work(self, event: e.WorkPlan, _t: float) -> None:
        self.work = dict(event.seconds)

    def _on_memory(self, event: e.MemoryUsage, t: float) -> None:
        self.memory = event
        self.peak_memory_mb = max(event.peak_mb, self.peak_memory_mb or 0.0)
        self._own("", "memory").append(t - (self.started_at or t), event.used_mb)

    def _on_evaluated(self, event: e.Evaluated, _t: float) -> None:
        _append(self.evals, event)
        if event.loss is not None:
            self._own(event.phase, f"eval:{event.name}").append(self.step_offset + event.step, event.loss)

    def _on_sample(self, event: e.ModelSample, _t: float) -> None:
        if event.prompt:  # blank when what it quotes was erased
            _append(self.samples, event)

    def _on_epoch(self, event: e.EpochDone, _t: float) -> None:
        _append(self.epochs, event)

    def _on_checkpoint(self, event: e.CheckpointWritten, t: float) -> None:
        self.last_checkpoint = event
        if not self.phase:
            # A resumed run that stopped before its first step is at the step of its checkpoint.
            self.step = event.step
        _append(self.checkpoints, event)
        words = describe(event)
        place = self.step_offset + event.step
        _append(
            self.checkpoint_annotations,
            Annotation(event.phase, place, words[1] if words else "", AnnotationKind.CHECKPOINT, t),
        )

    def _on_command(self, event: e.CommandHandled, t: float) -> None:
        _append(self.commands, event)
        if event.accepted and event.name == "set":
            self._annotate(event.value, t)
            name, _equals, text = event.value.partition("=")
            if name.strip() == "lr":
                with contextlib.suppress(ValueError):
                    self.peak_lr, self._peak_was_set = float(text), True

    def _on_recovery(self, event: e.RecoveryAction, t: float) -> None:
        place = self.step_offset + event.step
        kind = AnnotationKind.ROLLBACK if event.action == "returned" else AnnotationKind.RECOVERY
        _append(self.annotations, Annotation(event.phase, place, recovery_text(event), kind, t))

    def _on_governor(self, event: e.GovernorAction, t: float) -> None:
        place = self.step_offset + event.step
        _append(
            self.annotations, Annotation(event.phase, place, governor_text(event), AnnotationKind.GOVERNOR, t)
        )

    def _on_cycle(self, event: e.EvolutionCycle, t: float) -> None:
        if event.state == "began":
            self.step_offset = int(max(self.series("native", "loss").x, default=0.0))
        self.cycles = [old for old in self.cycles if old.cycle != event.cycle] + [event]
        place = int(max(self.series("native", "loss").x, default=0.0))
        _append(self.annotations, Annotation("native", place, cycle_text(event), AnnotationKind.CYCLE, t))

    def _annotate(self, text: str, t: float) -> None:
        _append(
            self.annotations,
            Annotation(self.phase, self.step_offset + self.step, text, AnnotationKind.COMMAND, t),
        )

    def annotations_of(self, phase: str) -> list[Annotation]:
        """Annotations of a phase, checkpoints included, in the order of its curve."""
        found = [mark for mark in (*self.annotations, *self.checkpoint_annotations) if mark.phase == phase]
        return sorted(found, key=lambda mark: (mark.step, mark.t))

    @property
    def curve_end(self) -> int:
        """Last step that the curve of the current phase will reach."""
        return self.step_offset + self.max_steps

    def _on_plan(self, event: e.TrainingPlan, _t: float) -> None:
        self.plan = event

    def _on_funnel(self, event: e.Funnel, _t: float) -> None:
        self.funnel = event

    def _on_ranks(self, event: e.RanksReported, _t: float) -> None:
        self.ranks = event.ranks

    def _on_rank_lost(self, event: e.RankLost, t: float) -> None:
        self._annotate(rank_lost_text(event), t)

    def _on_verdict(self, event: e.VerdictGiven, _t: float) -> None:
        self.verdict = event

    def _on_promoted(self, event: e.Promoted, _t: float) -> None:
        self.promoted = event

    def _on_finished(self, event: e.Finished, t: float) -> None:
        self.finished, self.finished_at = event, t
        self.status, self.reason, self.eta_s = event.status, "", None
        self.idle.status(event.status, t)

    _HANDLERS: ClassVar[dict[type[e.Event], Callable[[RunView, Any, float], None]]] = {
        e.Started: _on_started,
        e.StatusChanged: _on_status,
        e.StageChanged: _on_stage,
        e.Progress: _on_progress,
        e.WorkPlan: _on_work,
        e.MemoryUsage: _on_memory,
        e.Evaluated: _on_evaluated,
        e.ModelSample: _on_sample,
        e.EpochDone: _on_epoch,
        e.CheckpointWritten: _on_checkpoint,
        e.CommandHandled: _on_command,
        e.RecoveryAction: _on_recovery,
        e.RanksReported: _on_ranks,
        e.RankLost: _on_rank_lost,
        e.GovernorAction: _on_governor,
        e.TrainingPlan: _on_plan,
        e.Funnel: _on_funnel,
        e.VerdictGiven: _on_verdict,
        e.Promoted: _on_promoted,
        e.EvolutionCycle: _on_cycle,
        e.Finished: _on_finished,
    }


def _append(items: list[Any], item: Any) -> None:
    items.append(item)
    if len(items) > _HISTORY_LIMIT:
        del items[0]
