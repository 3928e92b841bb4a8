"""Keeps a run within its memory budget and the machine usable: measures after each step and mitigates one
level at a time."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from engine.core.errors import RunFailed, UsageProblem, is_out_of_memory
from engine.core.i18n import _
from engine.machine import cgroup
from engine.machine.budget import Budget, limit_to_cgroup
from engine.machine.cpu import Throttle
from engine.machine.pressure import Advice, PressureFinding, PressureMonitor
from engine.runs import events
from engine.runs.event_text import budget_reason_text, governor_cause_text
from engine.runs.events import RunStatus, StatusChanged
from engine.runs.kinds import KINDS
from engine.runs.shared_memory import TRAINING_SHARE, service_mb
from engine.runs.spec import RunSpec
from engine.training.autotune import keep_freed_memory
from engine.training.batches import Batch
from engine.training.checkpoint_saver import CheckpointSaver
from engine.training.control import handle_commands
from engine.training.metrics import TrainingMetrics
from engine.training.microbatch import STATE_BYTES, fit_micro_batch
from engine.training.peak_memory import PeakMemory
from engine.training.trainer import TrainingJob

T = TypeVar("T")

BUFFER_SHARE = 1 - TRAINING_SHARE
"""Upper bound on `memory_buffer_gb`, as a share of the budget: a small budget stays usable."""


class Mitigation(StrEnum):
    DROP_CACHES = "caches"
    """Freed memory is returned to the system, from here on as soon as it is freed."""
    HALVE_MICRO_BATCH = "smaller"
    """Half the windows per micro-batch, twice as many micro-batches: the same batch."""
    ACTIVATION_CHECKPOINTING = "recompute"
    """Layers are recomputed in the backward pass."""
    STOP = "stop"
    """A checkpoint, then the end of the run with an error."""


def buffer_mb(budget_mb: float, wanted_mb: float = 512.0, service_mb: float = 0.0) -> float:
    """MB of a budget to keep free: the `wanted_mb` of the settings, or what the inference service takes."""
    return min(max(wanted_mb, service_mb), BUFFER_SHARE * budget_mb)


def next_mitigation(
    used_mb: float, budget_mb: float, free_mb: float, *, dropped: bool, halvable: bool, checkpointing: bool
) -> Mitigation | None:
    """The mildest mitigation left when less than `free_mb` is free; STOP only above the budget itself.

    `dropped`: caches have just been dropped. `halvable`: a micro-batch has more than one window.
    `checkpointing`: activation checkpointing is on. An infinite `used_mb` stands for a failed allocation.
    """
    if used_mb <= budget_mb - free_mb:
        return None
    if not dropped:
        return Mitigation.DROP_CACHES
    if halvable:
        return Mitigation.HALVE_MICRO_BATCH
    if not checkpointing:
        return Mitigation.ACTIVATION_CHECKPOINTING
    return Mitigation.STOP if used_mb > budget_mb else None


DROP_CACHES_EVERY = 500
"""Minimum steps between two drops of the caches."""
PERMANENT = (Mitigation.HALVE_MICRO_BATCH, Mitigation.ACTIVATION_CHECKPOINTING)
"""Mitigations that slow down every later step."""
MIN_HALVING_GAIN = 0.01
"""Minimum saving, as a share of the budget, for another micro-batch halving while only the buffer is used:
the rest is the program itself."""
CACHE_RETRY_STEPS = 10
"""Steps after a drop of the caches from which they are dropped again before the run is stopped."""
MITIGATION_INTERVAL_S = 10.0
"""Seconds between two mitigations for machine pressure, which is an average over this long."""
MIN_EVAL_TOKENS = 256
"""Tokens per forward pass below which evaluations are not shrunk further."""
POLL_S = 0.5
"""Seconds between two polls for commands during a pause."""


class ResourceGovernor:
    """Measures a job against its budget and the machine's pressure, and mitigates."""

    def __init__(self, job: TrainingJob, pressure: PressureMonitor | None = None) -> None:
        self.job = job
        if job.budget is None:
            job.budget = Budget(math.inf, "")
        settings = job.ctx.settings
        self.memory = PeakMemory(job.device.name, tree_every_s=settings.resource_check_interval)
        self.pressure = pressure or PressureMonitor(
            interval_s=settings.resource_check_interval,
            battery=settings.pause_on_battery,
            celsius=settings.pause_above_c,
        )
        self._cpu_limit = Throttle(settings.max_cpu_percent)
        self._requested = self._effective = job.budget
        """The budget without and with the limit of the system."""
        self._kernel_limit_mb = job.budget.mb
        """The current limit of the cgroup."""
        self._limit_checked_at = time.monotonic()
        self._service_mb = service_mb(job.ctx.workspace)
        """What the inference service takes of the budget."""
        self._dropped_at = -DROP_CACHES_EVERY
        self._mitigated_at = -math.inf
        self._used_before_halving = math.inf
        """MB in use before the last halving."""
        self._largest = (1, 0)
        """Parts and tokens of the largest micro-batch of the last batch."""
        self._saver: CheckpointSaver | None = None
        self._step_start = job.state.batches_drawn
        """`batches_drawn` at the start of the current step."""

    @property
    def budget(self) -> Budget:
        assert self.job.budget is not None
        return self.job.budget

    @property
    def buffer(self) -> float:
        """MB of the budget to keep free."""
        return buffer_mb(self.budget.mb, 1024 * self.job.ctx.settings.memory_buffer_gb, self._service_mb)

    def fit_micro_batches(self) -> None:
        """Before the first step: measures the largest micro-batch that fits. A resumed phase keeps its
        micro-batches.

        Raises UsageProblem when the program alone exceeds the budget.
        """
        job, limit = self.job, self.budget.mb
        own = self.memory.peak_mb()
        # The other processes of this machine will use as much.
        used = own * job.replicas.memory_shares
        if used > limit:
            raise UsageProblem(
                _(
                    "the memory budget of {budget} MB ({bound}) is less than the {used} MB of the program "
                    "alone"
                ).format(budget=round(limit), bound=budget_reason_text(self.budget.reason), used=round(used)),
                hint=_more_memory_hint(used + 512, self.budget),
            )
        if job.resumed is None and not math.isinf(limit):
            trained = sum(parameter.numel() for parameter in job.optimizer.parameters)
            room = (limit - self.buffer) / job.replicas.memory_shares - STATE_BYTES * trained / 2**20
            if not job.fit_micro_batches(self.memory, own, room):
                fit_micro_batch(job, self.memory, own, room)

    # Within a step: retries after running out of memory

    def retry_on_oom(
        self,
        work: Callable[..., T],
        *arguments: object,
        before_retry: Callable[[], None] | None = None,
        shrink: Callable[[], bool] | None = None,
    ) -> T:
        """The result of `work(*arguments)`; after an allocation failure one mitigation is applied and `work`
        is retried.

        `work` must change nothing before all its memory is allocated. `shrink` reduces its size, True when
        that was possible; `before_retry` runs between two attempts. Raises RunFailed when no mitigation is
        left.
        """
        while True:
            try:
                return work(*arguments)
            except (MemoryError, RuntimeError) as problem:
                if not is_out_of_memory(problem):
                    raise
            # Outside the handler, so that the traceback no longer holds the tensors.
            self._allocation_failed(shrink is not None and shrink())
            if before_retry is not None:
                before_retry()

    def evaluate(self, metrics: TrainingMetrics, limit: int) -> None:
        """`TrainingMetrics.evaluate`, in smaller batches after an allocation failure."""
        self.retry_on_oom(metrics.evaluate, limit, shrink=self.shrink_evaluation)

    def shrink_evaluation(self) -> bool:
        """Halves the batches of evaluations; False when they are at their minimum."""
        if self.job.eval_tokens <= MIN_EVAL_TOKENS:
            return False
        self.job.eval_tokens //= 2
        return True

    def accumulate(self, batch: Batch) -> float:
        """`TrainingJob.accumulate` of a batch; after a mitigation the same batch is cut into other
        micro-batches."""
        job, current = self.job, [batch]

        def gradients() -> float:
            self._largest = max((part.parts, part.ids.numel()) for part in current[-1].micro_batches)
            return job.accumulate(current[-1])

        def cut_again() -> None:
            job.optimizer.zero_grad()
            current[:] = [job.batches.batch_at(job.state.batches_drawn - 1, job.state.max_steps)]

        return self.retry_on_oom(gradients, before_retry=cut_again)

    def _allocation_failed(self, smaller: bool) -> None:
        mitigation = self._next_mitigation(math.inf) or Mitigation.STOP
        if mitigation is Mitigation.STOP and smaller:
            mitigation = Mitigation.DROP_CACHES
        self._apply(mitigation, "allocation", self.memory.peak_mb())
        if mitigation is not Mitigation.STOP:
            return
        self.job.optimizer.zero_grad()
        self.memory.drop_caches()
        state = self.job.state
        if self._saver is not None:
            # The batch was drawn but not applied: the resumed run starts with it.
            state.batches_drawn = self._step_start
            with contextlib.suppress(MemoryError):
                self._saver.save()
        raise self._failure(self.budget.mb)

    # Between two steps

    def check_budget(self, saver: CheckpointSaver) -> None:
        """After a step: measures and applies one mitigation if memory runs short.

        Raises RunFailed after a checkpoint when no mitigation is left.
        """
        used = self.memory.peak_mb()
        self._update_limit(used)
        mitigation = self._next_mitigation(used)
        if mitigation is Mitigation.STOP and self.job.state.step - self._dropped_at >= CACHE_RETRY_STEPS:
            # No lasting mitigation is left, but caches that have grown since can be dropped.
            mitigation = Mitigation.DROP_CACHES
        if mitigation is None or (
            mitigation in PERMANENT and used <= self.budget.mb and self._halving_gained_little(used)
        ):
            return
        self._apply(mitigation, "budget", used)
        if mitigation is not Mitigation.DROP_CACHES:
            # The order of floating-point sums changes here: a resumed run must change it at the same step.
            self.retry_on_oom(saver.save)
        if mitigation is Mitigation.STOP:
            raise self._failure(used)

    def throttle(self, saver: CheckpointSaver) -> bool:
        """Before a step: sleeps for `max_cpu_percent`, frees memory or pauses under machine pressure.

        True when the run has to stop, as in `handle_commands`.
        """
        job = self.job
        self._saver, self._step_start = saver, job.state.batches_drawn
        if self._cpu_limit.pause(lambda: job.ctx.stop_requested):
            saver.metrics.exclude_pause()
        finding = self.pressure.check()
        if finding is None or finding.advice is Advice.GO:
            return False
        if finding.advice is Advice.SHRINK:
            self._mitigate_pressure(finding, saver)
            return False
        self.retry_on_oom(saver.save)
        self.memory.drop_caches()
        self._emit("pause", finding.cause, self.memory.peak_mb(), finding)
        latest, stop = finding, False
        job.ctx.commands.idle_status = StatusChanged(
            status=RunStatus.PAUSED,
            reason=governor_cause_text(self._event("pause", finding.cause, 0.0, finding)),
        )
        job.ctx.emit(job.ctx.commands.idle_status)
        while latest.advice is Advice.PAUSE and not stop:
            time.sleep(min(POLL_S, self.pressure.interval_s))
            stop = handle_commands(job, saver)
            latest = self.pressure.check(paused=finding.cause) or latest
        self._emit("resume", finding.cause, self.memory.peak_mb(), finding)
        job.ctx.commands.idle_status = StatusChanged(status=RunStatus.RUNNING)
        job.ctx.emit(job.ctx.commands.idle_status)
        saver.metrics.exclude_pause()
        return stop

    def _mitigate_pressure(self, finding: PressureFinding, saver: CheckpointSaver) -> None:
        """Applies the mildest mitigation left because of machine pressure; training always continues."""
        if time.monotonic() - self._mitigated_at < MITIGATION_INTERVAL_S:
            return
        self._mitigated_at = time.monotonic()
        mitigation = self._next_mitigation(math.inf)
        if mitigation is None or mitigation is Mitigation.STOP:
            return
        self._apply(mitigation, finding.cause, self.memory.peak_mb(), finding)
        if mitigation is not Mitigation.DROP_CACHES:
            self.retry_on_oom(saver.save)

    def _update_limit(self, used: float) -> None:
        """Adopts a budget set by a command, and a changed limit of the system."""
        job, now = self.job, time.monotonic()
        if self.budget is not self._effective:
            self._requested = self._effective = self.budget
            self._used_before_halving = math.inf
            self._emit("limit", "set", used)
        if now - self._limit_checked_at >= job.ctx.settings.resource_check_interval:
            self._limit_checked_at = now
            self._service_mb = service_mb(job.ctx.workspace)
            smallest = limit_to_cgroup(self._requested, exclude=cgroup.run_cgroup_name())
            if smallest.mb != self.budget.mb:
                job.budget = self._effective = smallest
                self._used_before_halving = math.inf
                self._emit("limit", "cgroup", used)
        # The kernel kills a process whose limit is below its usage, so the limit shrinks only after memory
        # is freed. If the kernel refuses, because it also charges file pages, the next step tries again.
        below_usage = used > self.budget.mb and self.budget.mb < self._kernel_limit_mb
        if (
            self._kernel_limit_mb != self.budget.mb
            and not below_usage
            and cgroup.resize_limit(self.budget.mb)
        ):
            self._kernel_limit_mb = self.budget.mb

    def _halving_gained_little(self, used: float) -> bool:
        """Whether the last halving saved next to nothing."""
        return self._used_before_halving - used < MIN_HALVING_GAIN * self.budget.mb

    def _next_mitigation(self, used: float) -> Mitigation | None:
        return next_mitigation(
            used,
            self.budget.mb,
            self.buffer,
            dropped=self.job.state.step - self._dropped_at < DROP_CACHES_EVERY,
            halvable=self._largest[0] > 1,
            checkpointing=self.job.state.activation_checkpointing,
        )

    def _apply(
        self, mitigation: Mitigation, cause: str, used: float, finding: PressureFinding | None = None
    ) -> None:
        job, state = self.job, self.job.state
        if mitigation is Mitigation.HALVE_MICRO_BATCH:
            self._used_before_halving = used
            state.tokens_per_micro_batch = job.batches.tokens_per_micro_batch = self._largest[1] // 2
            self._largest = (self._largest[0] // 2, self._largest[1] // 2)
        elif mitigation is Mitigation.ACTIVATION_CHECKPOINTING:
            state.activation_checkpointing = job.model.model.activation_checkpointing = True
        elif mitigation is Mitigation.DROP_CACHES:
            # Kept memory breaks into pieces of sizes that no longer fit.
            keep_freed_memory(keep=False)
        self.memory.drop_caches()
        self._dropped_at = state.step
        self._emit(mitigation.value, cause, used, finding)

    def _emit(self, action: str, cause: str, used: float, finding: PressureFinding | None = None) -> None:
        self.job.ctx.set_budget(self.budget.mb, self.budget.reason)
        self.job.ctx.emit(self._event(action, cause, used, finding))

    def _event(
        self, action: str, cause: str, used: float, finding: PressureFinding | None
    ) -> events.GovernorAction:
        return events.GovernorAction(
            phase=self.job.state.phase,
            step=self.job.state.step,
            cause=cause,
            action=action,
            value=finding.value if finding else None,
            bound=finding.bound if finding else None,
            used_mb=round(used, 1),
            budget_mb=round(self.budget.mb, 1),
            buffer_mb=round(self.buffer, 1),
            pass_tokens=self.job.state.tokens_per_micro_batch,
        )

    def _failure(self, used: float) -> RunFailed:
        return RunFailed(
            _(
                "training needs more memory than its budget: {used} MB of {budget} MB ({bound}) at step "
                "{step}, although micro-batches are as small as possible; a checkpoint is kept"
            ).format(
                used=round(used),
                budget=round(self.budget.mb),
                bound=budget_reason_text(self.budget.reason),
                step=self.job.state.step,
            ),
            hint=_more_memory_hint(used + 512, self.budget, self.job.ctx.spec),
        )


def _more_memory_hint(mb: float, budget: Budget, started: RunSpec | None = None) -> str:
    """The command that gives the run more memory, resuming one that has `started`; where the system is the
    limit, a larger setting would not help."""
    if budget.reason != "max_memory_gb":
        return "h2q-tui check"
    command = (
        f"runs resume {started.run_id}" if started is not None and KINDS[started.kind].resumable else "train"
    )
    return f"h2q-tui {command} --max-memory-gb {math.ceil(mb / 102.4) / 10:.1f}"
